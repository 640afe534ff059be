//! Counts the physical cores that this process may use.

use std::num::NonZero;
use std::thread;

/// The number of threads for one operator. Two threads on one core only slow each other down.
pub(super) fn physical_cores() -> usize {
    // This heeds the affinity mask and the cgroup's CPU quota, but counts hardware threads.
    let usable = thread::available_parallelism().map_or(1, NonZero::get);
    count().map_or(usable, |cores| cores.clamp(1, usable))
}

#[cfg(not(target_os = "linux"))]
fn count() -> Option<usize> {
    Some(num_cpus::get_physical())
}

#[cfg(target_os = "linux")]
fn count() -> Option<usize> {
    use std::fs;

    let status = fs::read_to_string("/proc/thread-self/status").ok()?;
    count_cores(&status, |cpu| {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        fs::read_to_string(path).ok()
    })
}

/// Counts the cores of the CPUs that a thread may run on. `status` is the thread's `/proc/…/status`. `siblings` reads the
/// CPUs that share a core with a CPU: the list is the same for all CPUs of one core.
#[cfg(target_os = "linux")]
fn count_cores(status: &str, siblings: impl Fn(u32) -> Option<String>) -> Option<usize> {
    use std::collections::HashSet;

    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let cores: Option<HashSet<Vec<u32>>> =
        parse_cpus(allowed)?.into_iter().map(|cpu| parse_cpus(&siblings(cpu)?)).collect();
    Some(cores?.len())
}

/// Parses a list of CPUs such as `0-3,8`.
#[cfg(target_os = "linux")]
fn parse_cpus(list: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for range in list.trim().split(',') {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (start, end): (u32, u32) = (from.parse().ok()?, to.parse().ok()?);
        cpus.extend(start..=end);
    }
    Some(cpus)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    /// Counts the cores of `allowed` CPUs on a machine with these siblings for CPU 0, 1, and so on.
    fn cores(allowed: &str, siblings: &[&str]) -> Option<usize> {
        let status =
            format!("Name:\tstablehand\nCpus_allowed:\tff\nCpus_allowed_list:\t{allowed}\nvoluntary:\t1\n");
        count_cores(&status, |cpu| siblings.get(cpu as usize).map(|list| format!("{list}\n")))
    }

    #[test]
    fn cpus_that_share_a_core_count_once() {
        assert_eq!(cores("0-3", &["0", "1", "2", "3"]), Some(4));
        assert_eq!(cores("0-1", &["0-1", "0-1"]), Some(1));
        // Siblings may be neighbours, or lie half the CPUs apart.
        assert_eq!(cores("0-3", &["0-1", "0-1", "2-3", "2-3"]), Some(2));
        assert_eq!(cores("0-3", &["0,2", "1,3", "0,2", "1,3"]), Some(2));
    }

    #[test]
    fn only_the_allowed_cpus_count() {
        let siblings = ["0,2", "1,3", "0,2", "1,3"];
        assert_eq!(cores("0", &siblings), Some(1));
        assert_eq!(cores("0,2", &siblings), Some(1));
        assert_eq!(cores("1-2", &siblings), Some(2));
    }

    #[test]
    fn the_count_is_unknown_if_a_file_is_missing_or_cannot_be_parsed() {
        assert_eq!(cores("0-2", &["0", "1"]), None);
        assert_eq!(cores("0-1", &["0", ""]), None);
        assert_eq!(cores("0-1", &["0", "0-x"]), None);
        assert_eq!(cores("", &["0"]), None);
        assert_eq!(count_cores("Name:\tstablehand\n", |_| Some("0".to_owned())), None);
    }

    #[test]
    fn lists_of_cpus_are_parsed() {
        assert_eq!(parse_cpus("\t0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(parse_cpus("5"), Some(vec![5]));
        assert_eq!(parse_cpus(""), None);
    }
}
