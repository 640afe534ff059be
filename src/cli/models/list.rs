//! `stablehand models list`: lists the pulled models.

use std::fmt::Write as _;

use chrono::{DateTime, Local};
use clap::Args;

use super::Failure;
use crate::cli::print::print;
use crate::config::ModelsDirArgs;
use crate::hub::{ModelsDir, PulledModel};
use crate::size_text::size_text;

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    folders: ModelsDirArgs,
}

const HEADINGS: [&str; 5] = ["NAME", "KIND", "SIZE", "PULLED", "PATH"];

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
        table(&mut text, &complete);
    }
    for pull in unfinished {
        let _ = writeln!(
            text,
            "unfinished: {} ({} so far): pull it again to resume, or remove it with `stablehand models rm`",
            pull.name,
            size_text(pull.bytes)
        );
    }
    print(&text)
}

fn table(text: &mut String, models: &[PulledModel]) {
    let rows: Vec<[String; 5]> =
        std::iter::once(HEADINGS.map(str::to_owned)).chain(models.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    for [name, kind, size, pulled, path] in &rows {
        let [name_width, kind_width, size_width, pulled_width, _] = widths;
        let _ = writeln!(
            text,
            "{name:<name_width$}  {kind:<kind_width$}  {size:>size_width$}  {pulled:<pulled_width$}  {path}"
        );
    }
}

fn row(model: &PulledModel) -> [String; 5] {
    let manifest = &model.manifest;
    let pulled = DateTime::from_timestamp_millis(manifest.pulled_at_ms)
        .map(|time| time.with_timezone(&Local).format("%Y-%m-%d %H:%M").to_string());
    [
        manifest.name.clone(),
        manifest.kind.to_string(),
        size_text(manifest.bytes()),
        pulled.unwrap_or_default(),
        model.path().display().to_string(),
    ]
}
