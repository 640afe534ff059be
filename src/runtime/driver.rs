//! What NVIDIA's driver says of itself and of the cards that CUDA may use.
//!
//! The driver's own library is asked, not NVML: it is what CUDA will use, and it heeds `CUDA_VISIBLE_DEVICES`. It is loaded
//! when somebody asks first, and need not be there.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::path::Path;
use std::sync::OnceLock;

use libloading::Library;

/// What became of asking the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Driver {
    /// There is no driver library.
    Missing,
    /// There is one and it does not work, for this reason.
    Broken(String),
    /// There is one that answers none of our questions; whether it works shows when CUDA is tried.
    Silent,
    Works {
        /// The newest version of CUDA that it supports.
        cuda: (u32, u32),
        /// In CUDA's order.
        cards: Vec<Card>,
    },
}

/// A card as CUDA sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    pub name: String,
    pub compute_capability: (u32, u32),
    /// Bytes.
    pub memory: u64,
}

const LIBRARY: &str = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };

impl Driver {
    /// Asks once a process; the first time may take part of a second.
    pub fn get() -> &'static Self {
        static DRIVER: OnceLock<Driver> = OnceLock::new();
        DRIVER.get_or_init(ask)
    }

    /// The library's file name.
    pub fn library() -> &'static str {
        LIBRARY
    }
}

/// Whether the kernel knows an NVIDIA card, or Windows has one for this Linux, whatever the driver library says.
pub fn has_card_node() -> bool {
    (0..16).any(|number| Path::new(&format!("/dev/nvidia{number}")).exists())
        || ["/proc/driver/nvidia", "/dev/dxg"].iter().any(|path| Path::new(path).exists())
}

type Answer = c_int;
const NO_DEVICE: Answer = 100;
const CAPABILITY_MAJOR: c_int = 75;
const CAPABILITY_MINOR: c_int = 76;

/// The functions that are called, as `cuda.h` declares them.
struct Functions {
    init: unsafe extern "C" fn(c_uint) -> Answer,
    driver_version: unsafe extern "C" fn(*mut c_int) -> Answer,
    count: unsafe extern "C" fn(*mut c_int) -> Answer,
    get: unsafe extern "C" fn(*mut c_int, c_int) -> Answer,
    name: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> Answer,
    attribute: unsafe extern "C" fn(*mut c_int, c_int, c_int) -> Answer,
    total_memory: unsafe extern "C" fn(*mut usize, c_int) -> Answer,
}

#[expect(unsafe_code, reason = "a C library is loaded and called by the declarations of its header")]
fn ask() -> Driver {
    // SAFETY: the driver's library may run its initialisers: CUDA would load it all the same.
    let Ok(library) = (unsafe { Library::new(LIBRARY) }) else { return Driver::Missing };
    // SAFETY: the types are those of `cuda.h`, unchanged since CUDA 3.2.
    let functions = unsafe {
        || -> Result<Functions, libloading::Error> {
            Ok(Functions {
                init: *library.get(c"cuInit")?,
                driver_version: *library.get(c"cuDriverGetVersion")?,
                count: *library.get(c"cuDeviceGetCount")?,
                get: *library.get(c"cuDeviceGet")?,
                name: *library.get(c"cuDeviceGetName")?,
                attribute: *library.get(c"cuDeviceGetAttribute")?,
                total_memory: *library.get(c"cuDeviceTotalMem_v2")?,
            })
        }()
    };
    // The driver does not like to be unloaded.
    std::mem::forget(library);
    let Ok(functions) = functions else { return Driver::Silent };
    match functions.ask() {
        Ok(driver) => driver,
        Err((call, answer)) => Driver::Broken(format!("{call} answers error {answer}{}", meaning(answer))),
    }
}

/// What the usual errors of an installation mean.
fn meaning(answer: Answer) -> &'static str {
    match answer {
        34 => " (a stub of the driver's library is in its place)",
        NO_DEVICE => " (no card)",
        802 => " (the system is not ready: the fabric manager may not run)",
        803 => " (the driver's library and its kernel module differ in version: restart the machine)",
        804 => " (the compatibility package does not suit this card)",
        999 => " (unknown: the kernel module may not be loaded)",
        _ => "",
    }
}

type Failed = (&'static str, Answer);

#[expect(unsafe_code, reason = "C functions are called by the declarations of their header")]
impl Functions {
    fn ask(&self) -> Result<Driver, Failed> {
        // SAFETY, here and below: each function is given what its declaration asks for, and writes no further than that.
        match unsafe { (self.init)(0) } {
            0 => {}
            NO_DEVICE => return Ok(Driver::Works { cuda: self.version()?, cards: Vec::new() }),
            answer => return Err(("cuInit", answer)),
        }
        let mut count = 0;
        check("cuDeviceGetCount", unsafe { (self.count)(&raw mut count) })?;
        let cards = (0..count).map(|index| self.card(index)).collect::<Result<_, _>>()?;
        Ok(Driver::Works { cuda: self.version()?, cards })
    }

    fn version(&self) -> Result<(u32, u32), Failed> {
        let mut version = 0;
        check("cuDriverGetVersion", unsafe { (self.driver_version)(&raw mut version) })?;
        let version = u32::try_from(version).unwrap_or(0);
        Ok((version / 1000, version % 1000 / 10))
    }

    fn card(&self, index: c_int) -> Result<Card, Failed> {
        let (mut device, mut bytes) = (0, 0_usize);
        check("cuDeviceGet", unsafe { (self.get)(&raw mut device, index) })?;
        let mut name: [c_char; 256] = [0; 256];
        check("cuDeviceGetName", unsafe { (self.name)(name.as_mut_ptr(), 255, device) })?;
        check("cuDeviceTotalMem", unsafe { (self.total_memory)(&raw mut bytes, device) })?;
        let attribute = |attribute| {
            let mut value = 0;
            check("cuDeviceGetAttribute", unsafe { (self.attribute)(&raw mut value, attribute, device) })?;
            Ok(u32::try_from(value).unwrap_or(0))
        };
        // SAFETY: the last byte is still zero.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) };
        Ok(Card {
            name: name.to_string_lossy().into_owned(),
            compute_capability: (attribute(CAPABILITY_MAJOR)?, attribute(CAPABILITY_MINOR)?),
            memory: bytes as u64,
        })
    }
}

fn check(call: &'static str, answer: Answer) -> Result<(), Failed> {
    if answer == 0 { Ok(()) } else { Err((call, answer)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_twice_gives_the_same_answer() {
        assert!(std::ptr::eq(Driver::get(), Driver::get()));
        if let Driver::Works { cuda, cards } = Driver::get() {
            assert!(cuda.0 > 0 && cards.iter().all(|card| card.memory > 0 && card.compute_capability.0 > 0));
        }
    }
}
