//! Creates folders that only their owner may read.
//!
//! The data folder holds keys and pictures. Whatever creates a folder inside it may create the data folder too, so all of
//! them call this.

use std::fs::DirBuilder;
use std::io;
use std::path::Path;

/// Creates the folder and its missing parents with mode 0700. Existing folders keep their mode.
pub fn create(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn new_folders_and_new_parents_are_private_and_existing_ones_keep_their_mode() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let inner = dir.path().join("data/runtimes");
        create(&inner).unwrap();
        assert_eq!([mode(dir.path()), mode(&dir.path().join("data")), mode(&inner)], [0o755, 0o700, 0o700]);
        create(&inner).unwrap();
    }
}
