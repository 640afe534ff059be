//! How much memory the control groups of this process allow: those of containers, and those of systemd's services
//! (`MemoryMax=`). Linux has two layouts, which a machine may mix.

use std::fs;
use std::path::{Path, PathBuf};

/// Where each layout has its groups, and the files with limits in a group.
const LAYOUTS: [(&str, &[&str]); 2] = [
    ("/sys/fs/cgroup", &["memory.max", "memory.high"]),
    ("/sys/fs/cgroup/memory", &["memory.limit_in_bytes"]),
];

/// The smallest limit of this process's group and of all groups around it, in bytes. None: there is no limit.
pub(super) fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit(&groups, |path| fs::read_to_string(path).ok())
}

/// `groups`: the text of `/proc/self/cgroup`. Its paths may be those of the host, which a container does not see; so the root
/// always counts, which is the container's own group there.
fn limit(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let mut smallest: Option<u64> = None;
    for (root, names) in LAYOUTS {
        let own = groups.lines().filter_map(|line| {
            // hierarchy:controllers:path
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let is_ours = match root.ends_with("memory") {
                true => controllers.split(',').any(|name| name == "memory"),
                false => controllers.is_empty(),
            };
            is_ours.then(|| PathBuf::from(path.trim_start_matches('/')))
        });
        for path in own.chain([PathBuf::new()]) {
            for group in path.ancestors() {
                let limits = names.iter().filter_map(|name| {
                    // Without a limit, the file says `max` or a number beyond any memory.
                    read(&Path::new(root).join(group).join(name))?.trim().parse::<u64>().ok()
                });
                smallest = smallest.into_iter().chain(limits).min();
            }
        }
    }
    smallest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit_of(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        limit(groups, |path| {
            let (_, text) = files.iter().find(|(name, _)| Path::new(name) == path)?;
            Some((*text).to_owned())
        })
    }

    #[test]
    fn a_container_sees_its_own_group_at_the_root() {
        assert_eq!(limit_of("0::/", &[("/sys/fs/cgroup/memory.max", "4096\n")]), Some(4096));
        assert_eq!(limit_of("0::/", &[("/sys/fs/cgroup/memory.max", "max\n")]), None);
        let old = [("/sys/fs/cgroup/memory/memory.limit_in_bytes", "512\n")];
        assert_eq!(limit_of("4:memory:/docker/abc\n1:name=systemd:/docker/abc\n", &old), Some(512));
        assert_eq!(limit_of("", &[]), None);
    }

    #[test]
    fn a_service_has_the_smallest_limit_of_its_group_and_those_around_it() {
        let groups = "0::/system.slice/stablehand.service\n";
        let service = "/sys/fs/cgroup/system.slice/stablehand.service";
        let files = |own: &'static str, slice: &'static str| {
            [
                (format!("{service}/memory.max"), own),
                (format!("{service}/memory.high"), "max"),
                ("/sys/fs/cgroup/system.slice/memory.max".to_owned(), slice),
            ]
        };
        for (own, slice, expected) in
            [("4096", "max", Some(4096)), ("max", "1024", Some(1024)), ("4096", "8192", Some(4096))]
        {
            let files = files(own, slice);
            let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
            assert_eq!(limit_of(groups, &files), expected, "{own} in {slice}");
        }
        let high = format!("{service}/memory.high");
        assert_eq!(limit_of(groups, &[(&high, "99")]), Some(99));
    }
}
