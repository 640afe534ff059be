//! Checks the driver, the cards that it shows, and their memory.

use super::report::{Check, Verdict};
use crate::runtime::{
    CUDA_MINIMUM, Card, DRIVER_MINIMUM, Driver, card_memory, driver_version, has_card_node, machine_memory,
    serves,
};
use crate::size_text::size_text;

/// `wants_card` is true if the settings name a CUDA device. Then the lack of a card is a failure.
pub(super) fn checks(wants_card: bool) -> Vec<Check> {
    let mut checks = driver(Driver::get(), has_card_node());
    if let Driver::Works { cards, .. } = Driver::get() {
        for (index, found) in (0..).zip(cards) {
            checks.push(card(index, found));
            checks.push(card_memory_check(index, found));
        }
    }
    if let Some(bytes) = machine_memory() {
        let available = available_memory().map(|bytes| format!(", {} available now", size_text(bytes)));
        checks.push(Check::ok("memory", format!("{}{}", size_text(bytes), available.unwrap_or_default())));
    }
    if wants_card {
        // These would be warnings otherwise, but now they prevent the start.
        for check in checks.iter_mut().filter(|check| matches!(check.name, "driver" | "card")) {
            if check.verdict == Verdict::Warning {
                check.verdict = Verdict::Fail;
            }
        }
    }
    checks
}

/// Checks the driver. `has_node` is whether the kernel shows a card.
fn driver(driver: &Driver, has_node: bool) -> Vec<Check> {
    let newer = format!("update the NVIDIA driver to version {DRIVER_MINIMUM} or newer");
    match driver {
        Driver::Missing if has_node => vec![Check::warning(
            "driver",
            format!("there is an NVIDIA card, but not the driver's library {}", Driver::library()),
            format!(
                "install the NVIDIA driver, version {DRIVER_MINIMUM} or newer; in a container, start it with the \
                 NVIDIA container toolkit (docker run --gpus all)"
            ),
        )],
        Driver::Missing => vec![Check::note("driver", "no NVIDIA driver and no NVIDIA card")],
        Driver::Broken(reason) => vec![Check::warning(
            "driver",
            format!("the NVIDIA driver does not work: {reason}"),
            "restart the machine; if it stays so, reinstall the driver",
        )],
        Driver::Silent => vec![Check::note(
            "driver",
            format!("{} is there and does not answer as NVIDIA's driver does", Driver::library()),
        )],
        Driver::Works { cuda: (major, minor), cards } => {
            let version = driver_version().map(|version| format!(" {version}")).unwrap_or_default();
            let finding = format!("NVIDIA{version}, supports CUDA {major}.{minor}");
            let mut checks = vec![match (*major, *minor) < CUDA_MINIMUM {
                true => Check::warning(
                    "driver",
                    format!("{finding}; CUDA {}.{} is needed", CUDA_MINIMUM.0, CUDA_MINIMUM.1),
                    newer,
                ),
                false => Check::ok("driver", finding),
            }];
            if cards.is_empty() {
                checks.push(Check::warning(
                    "card",
                    "the driver shows no card",
                    "see whether CUDA_VISIBLE_DEVICES hides it, and whether nvidia-smi lists it",
                ));
            }
            checks
        }
    }
}

fn card(index: u32, card: &Card) -> Check {
    let (major, minor) = card.compute_capability;
    let finding = format!("cuda:{index} is {}, compute capability {major}.{minor}", card.name);
    match serves(card.compute_capability) {
        true => Check::ok("card", finding),
        false => Check::warning(
            "card",
            format!("{finding}: the CUDA runtime has no machine code for it"),
            "use the CPU, or a card of Turing, Ampere, Ada, Hopper (9.0) or consumer Blackwell (12.x)",
        ),
    }
}

fn card_memory_check(index: u32, card: &Card) -> Check {
    // NVML counts a little more memory than CUDA, so both numbers are NVML's.
    match card_memory(index) {
        Some(memory) => {
            let (total, used) = (memory.total, memory.used);
            let free = size_text(total.saturating_sub(used));
            Check::ok("card memory", format!("cuda:{index} has {}, {free} free", size_text(total)))
        }
        None => Check::ok(
            "card memory",
            format!("cuda:{index} has {}; NVML does not say how much is free", size_text(card.memory)),
        ),
    }
}

/// The bytes that programs could use now without swapping, as Linux estimates them.
pub(super) fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some((kib * 1024).min(machine_memory()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn works(cuda: (u32, u32), cards: Vec<Card>) -> Driver {
        Driver::Works { cuda, cards }
    }

    fn verdict(of: &Driver, has_node: bool) -> Verdict {
        driver(of, has_node).iter().map(|check| check.verdict).max().unwrap()
    }

    #[test]
    fn every_problem_with_a_driver_has_a_remedy() {
        let card = || Card { name: "NVIDIA T4".to_owned(), compute_capability: (7, 5), memory: 16 << 30 };
        assert_eq!(verdict(&Driver::Missing, false), Verdict::Note);
        assert_eq!(verdict(&works((13, 0), vec![card()]), true), Verdict::Ok);
        for (driver_state, has_node) in [
            (Driver::Missing, true),
            (Driver::Broken("cuInit answers error 803".to_owned()), true),
            (works((12, 8), vec![card()]), true),
            (works((13, 0), Vec::new()), true),
        ] {
            assert_eq!(verdict(&driver_state, has_node), Verdict::Warning, "{driver_state:?}");
            let checks = driver(&driver_state, has_node);
            let worst = checks.iter().find(|check| check.verdict == Verdict::Warning).unwrap();
            assert!(worst.remedy.is_some(), "{worst:?}");
        }
    }

    #[test]
    fn a_card_without_machine_code_is_named() {
        let b200 = Card { name: "NVIDIA B200".to_owned(), compute_capability: (10, 0), memory: 180 << 30 };
        let check = card(1, &b200);
        assert_eq!(check.verdict, Verdict::Warning);
        assert!(check.finding.starts_with("cuda:1 is NVIDIA B200, compute capability 10.0"), "{check:?}");
    }
}
