//! Who may import whom: the code is held to the table in `src/lib.rs`.
//!
//! A room is a folder or a file of `src` with a row in that table, such as `queue`, or a folder inside a room, such as
//! `diffusion::files`. Production code may import its own room, the rooms inside it, and what its row names. Test code
//! (`tests.rs`, `tests/`, `*_tests.rs` and `#[cfg(test)]` modules) may import anything: a worker's tests need a real
//! queue. Comments are not looked at.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each room with the rooms that it may import.
type Table = BTreeMap<String, Vec<String>>;

#[test]
fn rooms_import_only_what_the_table_in_lib_rs_allows() {
    let table = table();
    let mut broken = Vec::new();
    for file in source_files(Path::new("src")) {
        let module = module_of(&file);
        let Some(room) = room_of(&table, &module) else {
            broken
                .push(format!("{} is in no room: give it a row in the table of src/lib.rs", file.display()));
            continue;
        };
        for (line, path) in imports(&production_code(&fs::read_to_string(&file).unwrap()), &module) {
            let Some(target) = room_of(&table, &path) else { continue };
            if !may_import(&table, room, target) {
                broken.push(format!(
                    "{}:{line} looks into `{target}`, but `{room}` may import only: {}",
                    file.display(),
                    table[room].join(", ")
                ));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn the_table_names_rooms_that_exist_and_has_no_cycle() {
    let table = table();
    assert!(table.len() > 10, "the table was not found");
    for (room, targets) in &table {
        let exists = Path::new("src").join(room.replace("::", "/"));
        assert!(exists.is_dir() || exists.with_extension("rs").is_file(), "`{room}` has a row, but no code");
        for target in targets {
            assert!(table.contains_key(target), "`{room}` may import `{target}`, which has no row");
        }
        assert!(!reaches(&table, room, room), "`{room}` imports itself through other rooms");
    }
}

#[test]
fn imports_are_found_in_every_form() {
    let code = "pub(in crate::diffusion) use crate::{domain::{Job, JobId}, queue::JobQueue};\nlet x = super::super::wire::y;\nuse super::a::B;";
    let module = ["worker", "tests"].map(str::to_owned);
    let found: Vec<_> =
        imports(code, &module).into_iter().map(|(line, path)| (line, path.join("::"))).collect();
    let expected = [
        (1, "domain::Job"),
        (1, "domain::JobId"),
        (1, "queue::JobQueue"),
        (2, "wire::y"),
        (3, "worker::a::B"),
    ];
    assert_eq!(found, expected.map(|(line, path)| (line, path.to_owned())));
}

/// The rows `//! | room | may import |` of `src/lib.rs`; a cell's names are in backticks.
fn table() -> Table {
    let text = fs::read_to_string("src/lib.rs").unwrap();
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | `"));
    rows.map(|row| {
        let (room, rest) = row.split_once("` |").unwrap();
        (room.to_owned(), names(rest.split('|').next().unwrap()))
    })
    .collect()
}

fn may_import(table: &Table, room: &str, target: &str) -> bool {
    let within = |outer: &str| target == outer || target.starts_with(&format!("{outer}::"));
    within(room) || table[room].iter().any(|allowed| within(allowed))
}

fn reaches(table: &Table, from: &str, to: &str) -> bool {
    let (mut reached, mut ahead) = (BTreeSet::new(), vec![from]);
    while let Some(room) = ahead.pop() {
        ahead.extend(table[room].iter().map(String::as_str).filter(|next| reached.insert(*next)));
    }
    reached.contains(to)
}

fn source_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if name == "tests" || name.ends_with("_tests") {
            continue;
        }
        if path.is_dir() {
            files.extend(source_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    // The crate's own root and the program's entry are no rooms.
    files.retain(|file| file != Path::new("src/lib.rs") && file != Path::new("src/main.rs"));
    files.sort();
    files
}

/// The module that a file holds: `src/queue/board.rs` is `queue::board`.
fn module_of(file: &Path) -> Vec<String> {
    let names = file.strip_prefix("src").unwrap().with_extension("");
    let names = names.iter().map(|name| name.to_str().unwrap().to_owned());
    names.filter(|name| name != "mod").collect()
}

/// The innermost room that a path lies in.
fn room_of<'a>(table: &'a Table, path: &[String]) -> Option<&'a str> {
    (1..=path.len()).rev().find_map(|length| {
        let (room, _) = table.get_key_value(&path[..length].join("::"))?;
        Some(room.as_str())
    })
}

/// The code without comments and without what follows `#[cfg(test)]` up to the end of that item.
fn production_code(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            let indent = &line[..line.len() - line.trim_start().len()];
            code.push('\n');
            for skipped in lines.by_ref() {
                code.push('\n');
                let is_first_level = skipped.starts_with(indent) && !skipped[indent.len()..].starts_with(' ');
                if is_first_level && (skipped.ends_with(';') || skipped.ends_with('}')) {
                    break;
                }
            }
            continue;
        }
        code.push_str(line.split_once("//").map_or(line, |(before, _)| before));
        code.push('\n');
    }
    code
}

/// The absolute paths, without `crate`, that begin with `crate::` or `super::`, and their lines.
fn imports(code: &str, module: &[String]) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    for root in ["crate::", "super::"] {
        for (at, _) in code.match_indices(root) {
            let before = &code[..at];
            if before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                continue; // such as the second `super::` of `super::super::`
            }
            if before.ends_with("(in ") {
                continue; // a visibility
            }
            let mut rest = &code[at..];
            let mut prefix = module.to_vec();
            if let Some(after) = rest.strip_prefix("crate::") {
                (prefix, rest) = (Vec::new(), after);
            }
            while let Some(after) = rest.strip_prefix("super::") {
                prefix.pop();
                rest = after;
            }
            let line = code[..at].lines().count().max(1);
            found.extend(leaves(rest, &prefix).0.into_iter().map(|path| (line, path)));
        }
    }
    found.sort();
    found
}

/// The paths of a use tree such as `a::{b, c::d}` behind `prefix`, and the text that follows the tree.
fn leaves<'a>(text: &'a str, prefix: &[String]) -> (Vec<Vec<String>>, &'a str) {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        let mut paths = Vec::new();
        loop {
            rest = rest.trim_start().trim_start_matches(',').trim_start();
            if rest.is_empty() || rest.starts_with('}') {
                return (paths, rest.strip_prefix('}').unwrap_or(rest));
            }
            let (inner, after) = leaves(rest, prefix);
            paths.extend(inner);
            rest = after;
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let path: Vec<String> =
        prefix.iter().cloned().chain((!name.is_empty()).then(|| name.to_owned())).collect();
    match rest.strip_prefix("::") {
        Some(rest) if !name.is_empty() => leaves(rest, &path),
        _ => {
            // `*`, `as x`: up to the next separator.
            let end = rest.find([',', '}', ';', '\n']).unwrap_or(rest.len());
            (vec![path], &rest[end..])
        }
    }
}
