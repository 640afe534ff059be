//! `stablehand models list`: lists the pulled models, those that were copied into their folder, and those in the cache of
//! the hub's own programs.

use std::fmt::Write as _;

use chrono::{DateTime, Local};
use clap::Args;

use super::Failure;
use crate::cli::print::print;
use crate::config::ModelsDirArgs;
use crate::hub::{CachedModel, CopiedModel, HubCache, ModelsDir, PulledModel};
use crate::size_text::size_text;

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    folders: ModelsDirArgs,
}

const HEADINGS: [&str; 5] = ["NAME", "KIND", "SIZE", "PULLED", "PATH"];
const SIZE: usize = 2;
const CACHED_HEADINGS: [&str; 4] = ["NAME", "KIND", "SIZE", "PATH"];

pub(super) fn list(args: &ListArgs) -> Result<(), Failure> {
    let models = ModelsDir::new(args.folders.models_dir()?);
    let (complete, unfinished) = (models.list()?, models.unfinished()?);
    let mut text = String::new();
    if complete.is_empty() {
        let _ = writeln!(
            text,
            "no models in {} yet: pull one with `stablehand models pull ORG/NAME`",
            models.path().display()
        );
    } else {
        table(&mut text, HEADINGS, complete.iter().map(row));
    }
    for pull in unfinished {
        let _ = writeln!(
            text,
            "unfinished: {} ({} so far): pull it again to resume, or remove it with `stablehand models rm`",
            pull.name,
            size_text(pull.bytes)
        );
    }
    list_copied(&mut text, &models);
    if let Some(cache) = HubCache::of_this_user() {
        list_cache(&mut text, &cache);
    }
    print(&text)
}

/// The models that somebody copied into the folder.
fn list_copied(text: &mut String, models: &ModelsDir) {
    let copied = models.copied();
    if copied.is_empty() {
        return;
    }
    let _ = writeln!(text, "\nCopied into {} (`models rm` does not delete them):", models.path().display());
    let row = |model: CopiedModel| {
        let kind = if model.path.is_dir() { "folder" } else { "file" };
        [model.name, kind.to_owned(), size_text(model.bytes), model.path.display().to_string()]
    };
    table(text, CACHED_HEADINGS, copied.into_iter().map(row));
}

/// The models that stablehand uses from a cache, and leaves there.
fn list_cache(text: &mut String, cache: &HubCache) {
    let (complete, incomplete): (Vec<_>, Vec<_>) =
        cache.list().into_iter().partition(|model| model.problem.is_none());
    if !complete.is_empty() {
        let _ = writeln!(
            text,
            "\nIn the cache of the hub's own programs, {} (used from there; `models rm` does not delete them):",
            cache.path().display()
        );
        table(text, CACHED_HEADINGS, complete.iter().map(cached_row));
    }
    for model in incomplete {
        let _ = writeln!(
            text,
            "incomplete in {}: {} ({}): `stablehand models pull` downloads it anew",
            cache.path().display(),
            model.name,
            model.problem.unwrap_or_default()
        );
    }
}

/// Writes a table. The third column, the size, is aligned to the right.
fn table<const N: usize>(text: &mut String, headings: [&str; N], rows: impl Iterator<Item = [String; N]>) {
    let rows: Vec<[String; N]> = std::iter::once(headings.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in &rows {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
            SIZE => format!("{cell:>width$}"),
            last if last == N - 1 => cell.clone(),
            _ => format!("{cell:<width$}"),
        });
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  "));
    }
}

fn row(model: &PulledModel) -> [String; 5] {
    let manifest = &model.manifest;
    let pulled = DateTime::from_timestamp_millis(manifest.pulled_at_ms)
        .map(|time| time.with_timezone(&Local).format("%Y-%m-%d %H:%M").to_string());
    [
        manifest.name.clone(),
        manifest.form(),
        size_text(manifest.bytes()),
        pulled.unwrap_or_default(),
        model.path().display().to_string(),
    ]
}

fn cached_row(model: &CachedModel) -> [String; 4] {
    [model.name.clone(), model.form(), size_text(model.bytes), model.path.display().to_string()]
}
