//! What Linux says about this process. On other systems there are no such figures.

use std::fs;

use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::signed;

/// Each figure, if it is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Process {
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_fds: Option<u64>,
    pub(super) cpu_seconds: Option<f64>,
}

impl Process {
    pub(super) fn read() -> Self {
        Self {
            resident_bytes: fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_bytes),
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64),
            cpu_seconds: fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_seconds),
        }
    }

    /// Registers the figures under the names that all Prometheus exporters use.
    pub(super) fn register(&self, registry: &mut Registry) {
        if let Some(bytes) = self.resident_bytes {
            let gauge = ConstGauge::new(signed(bytes));
            registry.register("process_resident_memory_bytes", "Resident memory", gauge);
        }
        if let Some(count) = self.open_fds {
            registry.register("process_open_fds", "Open file descriptors", ConstGauge::new(signed(count)));
        }
        if let Some(seconds) = self.cpu_seconds {
            let counter = ConstCounter::new(seconds);
            registry.register("process_cpu_seconds", "User and system time", counter);
        }
    }
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Fields 14 and 15 of `stat` (proc(5)), in hundredths of a second on every architecture that we run on. The second
/// field is a name in brackets that may contain anything, so reading begins behind it.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some((f64::from(ticks()?) + f64::from(ticks()?)) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_proc_are_parsed() {
        assert_eq!(resident_bytes("Name:\ta\nVmRSS:\t   2048 kB\n"), Some(2048 * 1024));
        assert_eq!(resident_bytes("Name:\ta\n"), None);
        let stat = "1 (a) b) S 1 1 1 0 -1 0 10 0 0 0 250 50 0 0 20 0 4 0 100";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("nonsense"), None);
    }
}
