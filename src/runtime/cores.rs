//! How many physical cores this process may use.

use std::num::NonZero;
use std::thread;

/// The number of threads for one operator: more than one on a core only get in each other's way.
pub(super) fn physical_cores() -> usize {
    // Within the affinity mask and the cgroup's CPU quota, but with each hardware thread counted.
    let usable = thread::available_parallelism().map_or(1, NonZero::get);
    count().map_or(usable, |cores| cores.clamp(1, usable))
}

#[cfg(not(target_os = "linux"))]
fn count() -> Option<usize> {
    Some(num_cpus::get_physical())
}

/// The cores behind the CPUs that this thread may run on: CPUs of one core have the same list of siblings.
#[cfg(target_os = "linux")]
fn count() -> Option<usize> {
    use std::collections::HashSet;
    use std::fs;

    let status = fs::read_to_string("/proc/thread-self/status").ok()?;
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let siblings = |cpu: u32| {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        fs::read_to_string(path).ok()
    };
    let cores: Option<HashSet<String>> = cpus(allowed)?.into_iter().map(siblings).collect();
    Some(cores?.len())
}

/// The numbers in a list such as `0-3,8`.
#[cfg(target_os = "linux")]
fn cpus(list: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for range in list.trim().split(',') {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (start, end): (u32, u32) = (from.parse().ok()?, to.parse().ok()?);
        cpus.extend(start..=end);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_at_most_as_many_cores_as_usable_cpus() {
        let usable = thread::available_parallelism().map_or(1, NonZero::get);
        assert!((1..=usable).contains(&physical_cores()));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn lists_of_cpus_are_parsed() {
        assert_eq!(cpus("\t0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(cpus("5"), Some(vec![5]));
        assert_eq!(cpus(""), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_tells_which_cpus_share_a_core() {
        assert!(count().is_some_and(|cores| cores > 0));
    }
}
