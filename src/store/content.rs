//! How bytes that must be deletable without a trace are laid out in the database file.
//!
//! `secure_delete` writes zeros over deleted rows. But when SQLite balances a tree, it copies whole cells to another page
//! and leaves the old copies in the unused part of a page that may stay in use for long. So a prompt could outlive its
//! row. Overflow pages are safe: only their deletion touches them, and that writes zeros. Hence the layout: a header that
//! fills exactly the part of the payload that SQLite keeps in the tree, then the content, then zeros up to whole overflow
//! pages. This costs at most one page for each content. The sizes are those of <https://www.sqlite.org/fileformat2.html#b_tree_pages>.

use rusqlite::{Connection, OptionalExtension, named_params};

use super::StoreError;

/// The database's page size, set when it is made.
pub(super) const PAGE: usize = 4096;
/// The least that SQLite keeps in the tree of a payload that overflows: `((U-12)*32/255)-23`.
const LOCAL: usize = (PAGE - 12) * 32 / 255 - 23;
/// What an overflow page holds besides the number of the next page.
const OVERFLOW: usize = PAGE - 4;
const LENGTH: usize = size_of::<u64>();

/// Stores `content` and returns its id.
pub(super) fn insert(db: &Connection, content: &[u8]) -> Result<i64, StoreError> {
    db.prepare_cached("insert into contents (bytes) values (:bytes)")?
        .insert(named_params! {":bytes": lay_out(content)})
        .map_err(StoreError::from)
}

/// Stores `content` in the place of another.
pub(super) fn replace(db: &Connection, id: i64, content: &[u8]) -> Result<(), StoreError> {
    db.prepare_cached("update contents set bytes = :bytes where id = :id")?
        .execute(named_params! {":bytes": lay_out(content), ":id": id})?;
    Ok(())
}

pub(super) fn find(db: &Connection, id: i64) -> Result<Option<Vec<u8>>, StoreError> {
    db.prepare_cached("select bytes from contents where id = :id")?
        .query_row(named_params! {":id": id}, |row| row.get(0))
        .optional()?
        .map(|bytes: Vec<u8>| pick_up(&bytes).ok_or(StoreError::Damaged))
        .transpose()
}

/// A content that was text when it was stored.
pub(super) fn text(db: &Connection, id: i64) -> Result<String, StoreError> {
    let bytes = find(db, id)?.ok_or(StoreError::Damaged)?;
    String::from_utf8(bytes).map_err(|_| StoreError::Damaged)
}

/// The size of a content without reading it, at most one page too large.
pub(super) fn size(db: &Connection, id: i64) -> Result<Option<usize>, StoreError> {
    let size: Option<i64> = db
        .prepare_cached("select length(bytes) from contents where id = :id")?
        .query_row(named_params! {":id": id}, |row| row.get(0))
        .optional()?;
    Ok(size.map(|size| usize::try_from(size).unwrap_or_default()))
}

/// The blob for `content`: its record (header of the record, blob) is `LOCAL + k × OVERFLOW` bytes long,
/// so that SQLite keeps exactly `LOCAL` bytes in the tree.
fn lay_out(content: &[u8]) -> Vec<u8> {
    let pages = content.len().div_ceil(OVERFLOW).max(1);
    let record = LOCAL + pages * OVERFLOW;
    let blob = record - record_header(record);
    let mut bytes = Vec::with_capacity(blob);
    bytes.extend_from_slice(&(content.len() as u64).to_le_bytes());
    bytes.resize(blob - pages * OVERFLOW, 0);
    bytes.extend_from_slice(content);
    bytes.resize(blob, 0);
    bytes
}

/// How many bytes the blob for a content of this length has.
pub(super) fn stored_size(length: usize) -> u64 {
    let record = LOCAL + length.div_ceil(OVERFLOW).max(1) * OVERFLOW;
    (record - record_header(record)) as u64
}

/// The content that `lay_out` was given.
fn pick_up(blob: &[u8]) -> Option<Vec<u8>> {
    let (length, _) = blob.split_first_chunk::<LENGTH>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let pages = length.div_ceil(OVERFLOW).max(1);
    let start = blob.len().checked_sub(pages * OVERFLOW)?;
    Some(blob.get(start..)?.get(..length)?.to_vec())
}

/// The length of the header of a record (integer primary key, blob): its own length, NULL for the key,
/// and the blob's type `12 + 2 × length` as a variable-length integer of 7 bits a byte.
fn record_header(record: usize) -> usize {
    (3..=9).find(|header| 2 + varint(12 + 2 * (record - header)) == *header).unwrap_or(4)
}

fn varint(value: usize) -> usize {
    (usize::BITS - value.leading_zeros()).div_ceil(7).max(1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUNDS: usize = 12;

    #[test]
    fn contents_of_all_lengths_read_back() {
        for length in [0, 1, 7, 488, 489, 4091, 4092, 4093, 8184, 8185, 100_000, 1_100_000] {
            let content: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
            assert_eq!(pick_up(&lay_out(&content)).unwrap(), content, "{length}");
            assert_eq!(stored_size(length), lay_out(&content).len() as u64, "{length}");
        }
    }

    #[test]
    fn no_content_stays_in_the_tree() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch("create table contents (id integer primary key, bytes blob not null) strict")
            .unwrap();
        for length in [0, 1, 300, 3000, 4092, 4093, 7700, 8184, 30_000, 1_044_000, 1_050_000] {
            insert(&db, &vec![b'x'; length]).unwrap();
        }
        // How many cells the leaves hold, and how many bytes of the payload.
        let (cells, local): (i64, i64) = db
            .query_row(
                "select sum(ncell), sum(pgsize - unused) from dbstat
                 where name = 'contents' and pagetype = 'leaf'",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap();
        let leaves: i64 = db
            .query_row(
                "select count(*) from dbstat where name = 'contents' and pagetype = 'leaf'",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(cells, 11);
        // A cell: payload length (at most 4 bytes), key, LOCAL, first overflow page; its pointer; page heads.
        let most = cells * (4 + 1 + i64::try_from(LOCAL).unwrap() + 4 + 2) + leaves * 8;
        assert!(local <= most, "{local} bytes lie in the tree, of which {most} are explained");
    }

    /// Without the layout, about one content in ten thousand outlives its row here.
    #[test]
    fn no_copy_is_left_when_rows_are_inserted_and_deleted_around_it() {
        let dir = tempfile::TempDir::new().unwrap();
        let mut random = 1_u64;
        let mut below = move |bound: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(random >> 33).unwrap() % bound
        };
        for round in 0..ROUNDS {
            let path = dir.path().join(round.to_string());
            let db = Connection::open(&path).unwrap();
            db.execute_batch(
                "pragma journal_mode = off; pragma synchronous = off; pragma secure_delete = on;
                 create table contents (id integer primary key, bytes blob not null) strict",
            )
            .unwrap();
            let (mut live, mut deleted) = (Vec::new(), Vec::new());
            for i in 0..3000 {
                let marker = format!("<{i:06}>");
                let content = marker.repeat([1, 2, 8, 30, 90, 240][below(6)]);
                live.push((insert(&db, content.as_bytes()).unwrap(), marker));
                while live.len() > 40 && below(10) < 7 {
                    let (id, marker) = live.swap_remove(below(live.len()));
                    db.execute("delete from contents where id = ?", [id]).unwrap();
                    deleted.push(marker);
                }
            }
            drop(db);
            let file = std::fs::read(&path).unwrap();
            let found: std::collections::HashSet<&[u8]> =
                file.windows(8).filter(|window| window[0] == b'<' && window[7] == b'>').collect();
            let left = deleted.iter().filter(|marker| found.contains(marker.as_bytes())).count();
            assert_eq!(left, 0, "round {round}, of {}", deleted.len());
        }
    }
}
