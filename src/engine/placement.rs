//! Where an engine runs.

use crate::runtime::Device;

/// The device of an engine, and the memory that it needs there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    pub device: Device,
    /// Bytes of the device's memory, estimated before the engine is loaded.
    pub needs: u64,
    /// Bytes that all engines on this device may hold together; none means no limit.
    pub budget: Option<u64>,
}
