//! Tests of [`super`].

use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::store::{Store, back_up};

const KEY: &str = "signing-key";

fn open(dir: &Path) -> Result<Store, StoreError> {
    Store::open(dir, Arc::new(|_, _, _| String::new()))
}

fn secret() -> Secret {
    (KEY.to_owned(), "s3cret".to_owned())
}

fn restore(file: &Path, dir: &Path) -> Result<Vec<Secret>, BackupError> {
    let restore = Restore::begin(file, dir, &[KEY])?;
    let secrets = restore.secrets().to_vec();
    for (name, text) in &secrets {
        fs::write(restore.staging().join(name), text).unwrap();
    }
    restore.finish()?;
    Ok(secrets)
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// A folder with a job, and a backup of it with a secret.
fn backup(place: &TempDir) -> PathBuf {
    let (dir, file) = (TempDir::new().unwrap(), place.path().join("copy"));
    open(dir.path()).unwrap().provoke(
        "insert into contents (id, bytes) values (7, zeroblob(900000));
         insert into latest_time values (1, 5)",
    );
    let bytes = back_up(dir.path(), &file, &[secret()]).unwrap();
    assert_eq!(bytes, fs::metadata(&file).unwrap().len());
    file
}

#[test]
fn a_backup_makes_the_same_folder_again() {
    let (place, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    assert_eq!(restore(&backup(&place), other.path()).unwrap(), [secret()]);
    assert_eq!(names(other.path()), ["lock", KEY, DATABASE]);
    let whole = fs::read(other.path().join(DATABASE)).unwrap();
    assert!(!whole.windows(6).any(|part| part == b"s3cret"), "the secret has left the database");
    let restored = open(other.path()).unwrap();
    let contents = restored
        .read(|db| Ok(db.query_row("select sum(length(bytes)) from contents", [], |row| row.get(0))?));
    assert_eq!(contents, Ok(900_000));
    // A folder of its own kind: the pragmas that only count before the first table are kept.
    let pragma = |name: &str| {
        restored.read(|db| Ok(db.pragma_query_value(None, name, |row| row.get::<_, i64>(0))?)).unwrap()
    };
    assert_eq!((pragma("page_size"), pragma("auto_vacuum")), (4096, 2));
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_s_name_need_not_be_utf_8() {
    use std::os::unix::ffi::OsStrExt as _;
    let place = TempDir::new().unwrap();
    let folder = place.path().join(std::ffi::OsStr::from_bytes(b"mod\xe9l"));
    fs::create_dir(&folder).unwrap();
    drop(open(&folder.join("data")).unwrap());
    back_up(&folder.join("data"), &folder.join("copy"), &[]).unwrap();
    restore(&folder.join("copy"), &folder.join("again")).unwrap();
    drop(open(&folder.join("again")).unwrap());
}

#[test]
fn a_folder_in_use_is_refused_and_stays_as_it_is() {
    let place = TempDir::new().unwrap();
    let file = backup(&place);
    for name in [DATABASE, KEY] {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join(name), "before").unwrap();
        let error = restore(&file, dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("has a file {name} already")), "{error}");
        assert_eq!(names(dir.path()), [name]);
        assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), "before");
    }
}

#[test]
fn what_is_no_backup_or_is_damaged_leaves_nothing_behind() {
    let place = TempDir::new().unwrap();
    let file = backup(&place);
    let whole = fs::read(&file).unwrap();
    let mut newer = whole.clone();
    newer[60..64].copy_from_slice(&1000_u32.to_be_bytes());
    let mut foreign = whole.clone();
    foreign[68..72].copy_from_slice(&7_u32.to_be_bytes());
    let mut cut = whole.clone();
    cut.truncate(whole.len() / 2);
    let mut broken = whole.clone();
    // The first pages hold the schema.
    broken[5 * 4096..40 * 4096].fill(0x55);
    for (bytes, sentence) in [
        (b"no database".repeat(99), "is no backup of stablehand"),
        (Vec::new(), "is no backup of stablehand"),
        (foreign, "is no backup of stablehand"),
        (newer, "newer stablehand"),
        (cut, "is damaged: "),
        (broken, "is damaged: "),
    ] {
        fs::write(&file, bytes).unwrap();
        let target = TempDir::new().unwrap();
        let error = restore(&file, target.path()).unwrap_err().to_string();
        assert!(error.contains(sentence) && !error.contains('\n'), "{error}");
        assert_eq!(names(target.path()), [""; 0], "{error}");
        let absent = target.path().join("absent");
        assert!(restore(&file, &absent).is_err() && !absent.exists());
    }
}

/// A data folder as a power loss leaves it after so many of the moves.
fn cut_after(moves: usize, file: &Path) -> TempDir {
    let dir = TempDir::new().unwrap();
    let mut restore = Restore::begin(file, dir.path(), &[KEY]).unwrap();
    fs::write(restore.staging().join(KEY), "s3cret").unwrap();
    let written = restore.names().filter(|name| restore.staging().join(name).exists());
    for name in written.collect::<Vec<_>>().into_iter().take(moves) {
        fs::rename(restore.staging().join(name), dir.path().join(name)).unwrap();
    }
    // Nobody cleans up.
    restore.is_finished = true;
    drop(restore);
    dir
}

#[test]
fn a_restore_that_is_cut_short_is_done_again_and_until_then_no_server_starts() {
    let place = TempDir::new().unwrap();
    let file = backup(&place);
    for moves in 0..=2 {
        let dir = cut_after(moves, &file);
        let Err(error) = open(dir.path()) else { panic!("a server starts after {moves} moves") };
        assert!(error.to_string().contains("cut short"), "{error}");
        assert_eq!(restore(&file, dir.path()).unwrap(), [secret()]);
        assert_eq!(names(dir.path()), ["lock", KEY, DATABASE]);
        drop(open(dir.path()).unwrap());
    }
}

#[test]
fn a_restore_that_fails_at_its_end_leaves_nothing() {
    let (place, dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let restore = Restore::begin(&backup(&place), dir.path(), &[KEY]).unwrap();
    // A file cannot be moved over a folder.
    fs::write(restore.staging().join(KEY), "s3cret").unwrap();
    fs::create_dir(dir.path().join(KEY)).unwrap();
    let error = restore.finish().unwrap_err().to_string();
    assert!(error.ends_with("; run it again"), "{error}");
    assert!(!dir.path().join(DATABASE).exists());
}
