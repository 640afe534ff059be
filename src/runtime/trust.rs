//! Who could change a file of code before it is loaded.
//!
//! A process may load code that only its own user or root can write. Anything else would run as this user what another
//! user wrote.

use std::fs::{self, Metadata};
use std::path::Path;

/// The user that this process runs as.
#[cfg(unix)]
pub(super) fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether the file or folder belongs to this user.
#[cfg(unix)]
pub(super) fn is_own(metadata: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    metadata.uid() == user()
}

/// Who else could change the file or folder, as the end of a sentence that begins with its path. The folders above it
/// are not judged.
#[cfg(unix)]
pub(super) fn who_else(metadata: &Metadata) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    judge(metadata.uid(), metadata.mode(), user())
}

#[cfg(unix)]
fn judge(owner: u32, mode: u32, user: u32) -> Option<String> {
    if owner != user && owner != ROOT {
        return Some(format!("belongs to user {owner}, who could change the code in it"));
    }
    // In a folder with the sticky bit, others may add files but not replace any.
    let is_open = mode & 0o022 != 0 && mode & 0o1000 == 0;
    is_open.then(|| "may be written by other users, who could change the code in it".to_owned())
}

#[cfg(unix)]
const ROOT: u32 = 0;

/// Who else could change `file`, judged by it and by all folders from it up to `root`, a sentence. A folder that only its
/// owner may enter protects what is below it.
#[cfg(unix)]
pub(super) fn who_else_under(root: &Path, file: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let mut found = None;
    for path in file.ancestors().take_while(|path| path.starts_with(root)) {
        let Ok(metadata) = fs::symlink_metadata(path) else { continue };
        match who_else(&metadata) {
            Some(why) => found = Some(format!("{} {why}", path.display())),
            None if metadata.is_dir() && metadata.mode() & 0o011 == 0 => found = None,
            None => {}
        }
    }
    found
}

/// Elsewhere, each user's folders are the system's business.
#[cfg(not(unix))]
pub(super) fn is_own(_: &Metadata) -> bool {
    true
}

#[cfg(not(unix))]
pub(super) fn who_else(_: &Metadata) -> Option<String> {
    None
}

#[cfg(not(unix))]
pub(super) fn who_else_under(_: &Path, _: &Path) -> Option<String> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn code_is_trusted_if_only_this_user_and_root_can_write_it() {
        const ME: u32 = 1000;
        for (owner, mode) in [(ME, 0o644), (ME, 0o600), (ROOT, 0o755), (ROOT, 0o1777)] {
            assert_eq!(judge(owner, mode, ME), None, "{owner} {mode:o}");
        }
        for (owner, mode, why) in [
            (1001, 0o600, "belongs to user 1001"),
            (ME, 0o664, "may be written by other users"),
            (ROOT, 0o777, "may be written by other users"),
        ] {
            assert!(judge(owner, mode, ME).unwrap().starts_with(why), "{owner} {mode:o}");
        }
        // Root trusts no other user either.
        assert!(judge(ME, 0o600, ROOT).is_some());
    }

    #[test]
    fn a_closed_folder_protects_what_is_below_it() {
        let root = tempfile::tempdir().unwrap();
        let (folder, file) = (root.path().join("cuda"), root.path().join("cuda/library.so"));
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "").unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        set(root.path(), 0o755);
        set(&folder, 0o755);
        set(&file, 0o666);
        let why = who_else_under(root.path(), &file).unwrap();
        assert!(why.starts_with(&format!("{} may be written by other users", file.display())), "{why}");
        set(root.path(), 0o700);
        assert_eq!(who_else_under(root.path(), &file), None);
        set(root.path(), 0o755);
        set(&file, 0o644);
        assert_eq!(who_else_under(root.path(), &file), None);
        set(&folder, 0o775);
        assert!(who_else_under(root.path(), &file).is_some());
    }
}
