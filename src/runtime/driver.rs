//! Reads from NVIDIA's driver which version of CUDA it supports and which cards CUDA may use.
//!
//! This calls the driver's own library and not NVML, because CUDA uses that library and it heeds `CUDA_VISIBLE_DEVICES`. It
//! is loaded on the first call. It may be missing.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::path::Path;
use std::sync::OnceLock;

use libloading::Library;

/// The state of the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Driver {
    /// The machine has no driver library.
    Missing,
    /// The library does not work, for this reason.
    Broken(String),
    /// The library lacks functions that are needed here. Whether it works shows when CUDA is tried.
    Silent,
    Works {
        /// The newest version of CUDA that it supports.
        cuda: (u32, u32),
        /// The cards, in CUDA's order.
        cards: Vec<Card>,
    },
}

/// A card as CUDA sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    pub name: String,
    pub compute_capability: (u32, u32),
    /// All of its memory, in bytes.
    pub memory: u64,
}

const LIBRARY: &str = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };

impl Driver {
    /// The driver's state, read once for each process. The first call may take part of a second.
    pub fn get() -> &'static Self {
        static DRIVER: OnceLock<Driver> = OnceLock::new();
        DRIVER.get_or_init(ask)
    }

    /// The library's file name.
    pub fn library() -> &'static str {
        LIBRARY
    }
}

/// Whether the kernel shows an NVIDIA card, or Windows lends this Linux one. The driver library may still be missing.
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
    // The driver may crash when it is unloaded.
    std::mem::forget(library);
    let Ok(functions) = functions else { return Driver::Silent };
    match functions.ask() {
        Ok(driver) => driver,
        Err((call, answer)) => Driver::Broken(format!("{call} answers error {answer}{}", meaning(answer))),
    }
}

/// Explains the errors that faulty installations usually cause.
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
#[expect(
    unsafe_code,
    reason = "the functions of the driver are replaced by functions with the same declarations"
)]
mod tests {
    use super::*;

    unsafe extern "C" fn init(_: c_uint) -> Answer {
        0
    }

    unsafe extern "C" fn init_without_card(_: c_uint) -> Answer {
        NO_DEVICE
    }

    unsafe extern "C" fn init_with_another_module(_: c_uint) -> Answer {
        803
    }

    unsafe extern "C" fn driver_version(version: *mut c_int) -> Answer {
        unsafe { *version = 13_010 };
        0
    }

    unsafe extern "C" fn count(count: *mut c_int) -> Answer {
        unsafe { *count = 2 };
        0
    }

    unsafe extern "C" fn get(device: *mut c_int, index: c_int) -> Answer {
        unsafe { *device = 10 + index };
        0
    }

    /// Fills the buffer to its end, as a long name would.
    unsafe extern "C" fn name(buffer: *mut c_char, length: c_int, device: c_int) -> Answer {
        let letter = if device == 10 { b'A' } else { b'B' };
        unsafe { buffer.write_bytes(letter, usize::try_from(length).unwrap()) };
        0
    }

    unsafe extern "C" fn attribute(value: *mut c_int, attribute: c_int, device: c_int) -> Answer {
        unsafe { *value = if attribute == CAPABILITY_MAJOR { device - 2 } else { 6 } };
        0
    }

    unsafe extern "C" fn total_memory(bytes: *mut usize, device: c_int) -> Answer {
        unsafe { *bytes = usize::try_from(device).unwrap() << 30 };
        0
    }

    unsafe extern "C" fn lost(_: *mut usize, _: c_int) -> Answer {
        999
    }

    const WORKING: Functions = Functions { init, driver_version, count, get, name, attribute, total_memory };

    #[test]
    fn every_card_is_read_with_its_own_values() {
        let card = |letter: &str, major, gib: u64| Card {
            name: letter.repeat(255),
            compute_capability: (major, 6),
            memory: gib << 30,
        };
        let cards = vec![card("A", 8, 10), card("B", 9, 11)];
        assert_eq!(WORKING.ask(), Ok(Driver::Works { cuda: (13, 1), cards }));
    }

    #[test]
    fn a_driver_without_cards_works() {
        let functions = Functions { init: init_without_card, ..WORKING };
        assert_eq!(functions.ask(), Ok(Driver::Works { cuda: (13, 1), cards: Vec::new() }));
    }

    #[test]
    fn a_failure_names_the_call_and_the_error() {
        let functions = Functions { init: init_with_another_module, ..WORKING };
        assert_eq!(functions.ask(), Err(("cuInit", 803)));
        let functions = Functions { total_memory: lost, ..WORKING };
        assert_eq!(functions.ask(), Err(("cuDeviceTotalMem", 999)));
        assert!(meaning(803).contains("restart the machine"));
    }
}
