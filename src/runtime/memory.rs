//! How much memory a device has, and how much of it is in use.
//!
//! NVIDIA's library NVML reports a card's memory; it is loaded on the first call and may be missing. Linux reports the
//! machine's memory. Functions return `None` for what is unknown.

use std::sync::OnceLock;
use std::{env, fs};

use nvml_wrapper::Nvml;

use super::{Device, cgroup};

/// What CUDA, cuDNN and cuBLAS take of a card. An H100 held about so much more than its models (`docs/gpu.md`).
const CUDA_MEMORY: u64 = 1_000_000_000;

/// In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    pub used: u64,
    pub total: u64,
}

impl Device {
    /// A card's memory, with the use of all programs. `None` for the CPU, where the process's own use is more useful.
    pub fn memory_use(&self) -> Option<MemoryUse> {
        match self {
            Self::Cpu => None,
            Self::Cuda { index, .. } => card_memory(*index),
        }
    }

    /// The bytes that models may use: `limit`, or without one a share of the device's memory, in both cases without what
    /// the device's libraries take. The rest is for the system. `None` where nothing is known.
    pub fn budget(&self, limit: Option<u64>) -> Option<u64> {
        let usual = || match self {
            Self::Cpu => machine_memory().map(|total| total / 10 * 8),
            Self::Cuda { index, .. } => card_memory(*index).map(|memory| memory.total / 10 * 9),
        };
        Some(limit.or_else(usual)?.saturating_sub(self.own_memory()))
    }

    /// The bytes of the device's memory that its libraries take, however many models there are. A CPU's are part of the
    /// process.
    pub fn own_memory(&self) -> u64 {
        match self {
            Self::Cpu => 0,
            Self::Cuda { .. } => CUDA_MEMORY,
        }
    }
}

/// The memory of the card that has this index in CUDA.
pub fn card_memory(index: u32) -> Option<MemoryUse> {
    let memory = nvml_device(index)?.memory_info().ok()?;
    Some(MemoryUse { used: memory.used, total: memory.total })
}

/// The compute capability, such as (8, 9), of the card that has this index in CUDA.
pub(super) fn compute_capability(index: u32) -> Option<(u32, u32)> {
    let capability = nvml_device(index)?.cuda_compute_capability().ok()?;
    Some((u32::try_from(capability.major).ok()?, u32::try_from(capability.minor).ok()?))
}

fn nvml_device(index: u32) -> Option<nvml_wrapper::Device<'static>> {
    let nvml = nvml()?;
    match card(index, env::var("CUDA_VISIBLE_DEVICES").ok().as_deref())? {
        Card::Index(index) => nvml.device_by_index(index).ok(),
        Card::Uuid(uuid) => nvml.device_by_uuid(uuid).ok(),
    }
}

/// The version of NVIDIA's driver, such as 580.65.06.
pub fn driver_version() -> Option<String> {
    nvml()?.sys_driver_version().ok()
}

fn nvml() -> Option<&'static Nvml> {
    static NVML: OnceLock<Option<Nvml>> = OnceLock::new();
    NVML.get_or_init(|| Nvml::init().ok()).as_ref()
}

/// A card as the driver knows it.
#[derive(Debug, PartialEq, Eq)]
enum Card {
    Index(u32),
    Uuid(String),
}

/// CUDA numbers the cards that `CUDA_VISIBLE_DEVICES` lets it see; the driver numbers all of them. (Where cards
/// differ, CUDA puts the fastest first unless `CUDA_DEVICE_ORDER=PCI_BUS_ID`.)
fn card(index: u32, visible: Option<&str>) -> Option<Card> {
    let Some(visible) = visible else { return Some(Card::Index(index)) };
    let named = visible.split(',').map(str::trim).nth(index as usize)?;
    match named.parse() {
        Ok(index) => Some(Card::Index(index)),
        Err(_) if named.starts_with("GPU-") || named.starts_with("MIG-") => {
            Some(Card::Uuid(named.to_owned()))
        }
        Err(_) => None,
    }
}

/// The machine's memory in bytes, or the limit of this process's container or service.
pub fn machine_memory() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(mem_total)?;
    Some(cgroup::memory_limit().map_or(machine, |limit| limit.min(machine)))
}

/// The machine's memory, and how much of it all programs use. A container's limit is not looked at.
pub fn machine_memory_use() -> Option<MemoryUse> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let total = mem_total(&meminfo)?;
    let available = mem_line(&meminfo, "MemAvailable:")?;
    Some(MemoryUse { used: total.saturating_sub(available), total })
}

fn mem_total(meminfo: &str) -> Option<u64> {
    mem_line(meminfo, "MemTotal:")
}

fn mem_line(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_found_behind_what_cuda_may_see() {
        assert_eq!(card(1, None), Some(Card::Index(1)));
        assert_eq!(card(1, Some("3, 2")), Some(Card::Index(2)));
        assert_eq!(card(0, Some("GPU-8932f937")), Some(Card::Uuid("GPU-8932f937".to_owned())));
        for (index, visible) in [(2, "0,1"), (0, ""), (0, "none"), (0, "-1")] {
            assert_eq!(card(index, Some(visible)), None, "{index} of {visible}");
        }
    }

    #[test]
    fn cudas_own_memory_is_not_for_models() {
        let card = Device::Cuda { index: 0, memory_gib: None };
        assert_eq!(card.budget(Some(8_000_000_000)), Some(7_000_000_000));
        assert_eq!(card.budget(Some(1)), Some(0));
    }

    #[test]
    fn the_machines_memory_is_read_as_linux_writes_it() {
        assert_eq!(mem_total("MemTotal:       24584560 kB\nMemFree: 1 kB\n"), Some(24_584_560 * 1024));
        assert_eq!(mem_total("MemFree: 1 kB\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_cpu_has_a_budget() {
        assert!(Device::Cpu.budget(None).is_some_and(|bytes| bytes > 64 << 20));
        assert_eq!(Device::Cpu.budget(Some(5 << 30)), Some(5 << 30));
        assert_eq!(Device::Cpu.memory_use(), None);
    }
}
