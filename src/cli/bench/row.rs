//! One measured figure, and the table of them.

use std::fmt::Write as _;

use serde::Serialize;

use crate::cli::Failure;
use crate::cli::paragraph::{WIDTH, wrap};
use crate::domain::ImageSize;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    pub measurement: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Of a UNet call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<usize>,
    /// None where there is no figure; the note says why.
    pub value: Option<f64>,
    pub unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Row {
    pub fn new(measurement: &'static str, value: f64, unit: &'static str) -> Self {
        // More digits say nothing.
        let value = (value * 1000.0).round() / 1000.0;
        Self { measurement, size: None, rows: None, value: Some(value), unit, note: None }
    }

    /// A row without a figure.
    pub fn without(measurement: &'static str, note: impl Into<String>) -> Self {
        Self { value: None, note: Some(note.into()), ..Self::new(measurement, 0.0, "") }
    }

    pub fn failed(measurement: &'static str, failure: &Failure) -> Self {
        Self::without(measurement, format!("failed: {failure}"))
    }

    pub fn size(self, size: ImageSize) -> Self {
        Self { size: Some(size_name(size)), ..self }
    }

    pub fn rows(self, rows: usize) -> Self {
        Self { rows: Some(rows), ..self }
    }

    pub fn note(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }
}

pub(super) fn size_name(size: ImageSize) -> String {
    format!("{}×{}", size.width, size.height)
}

/// Where a long note stands.
const INDENT: usize = 4;

/// The rows in columns; a measurement's name stands in its first row.
pub(super) fn table(rows: &[Row]) -> String {
    let name_width = rows.iter().map(|row| row.measurement.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    let mut last = "";
    for row in rows {
        let name = if row.measurement == last { "" } else { row.measurement };
        last = row.measurement;
        let size = row.size.as_deref().unwrap_or_default();
        let rows = match row.rows {
            Some(1) => "1 row".to_owned(),
            Some(rows) => format!("{rows} rows"),
            None => String::new(),
        };
        let value = row.value.map(figure).unwrap_or_default();
        let line = format!("{name:<name_width$}  {size:<9}  {rows:<7}  {value:>7} {:<8}  ", row.unit);
        match row.note.as_deref() {
            None => {
                let _ = writeln!(text, "{}", line.trim_end());
            }
            Some(note) if line.chars().count() + note.chars().count() <= WIDTH => {
                let _ = writeln!(text, "{line}{note}");
            }
            // Below it, such as what a library says of a failure.
            Some(note) => {
                let _ = write!(text, "{}\n{:INDENT$}", line.trim_end(), "");
                wrap(&mut text, note, INDENT);
            }
        }
    }
    text
}

/// Three digits that count.
fn figure(value: f64) -> String {
    match value.abs() {
        value if value >= 99.95 => format!("{value:.0}"),
        value if value >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_columns() {
        let size = ImageSize { width: 512, height: 512 };
        let rows = [
            Row::new("load", 1.234, "s"),
            Row::new("step", 11.44, "ms").size(size).rows(1),
            Row::new("step", 123.4, "ms").size(size).rows(16).note("8 pictures"),
            Row::without(
                "against the CPU",
                "failed: the model's unet failed: Non-zero status code returned while running NhwcConv node",
            ),
        ];
        let expected = "\
load                                    1.23 s
step             512×512    1 row       11.4 ms
                 512×512    16 rows      123 ms        8 pictures
against the CPU
    failed: the model's unet failed: Non-zero status code returned while running
    NhwcConv node
";
        assert_eq!(table(&rows), expected);
        assert!(expected.lines().all(|line| line.chars().count() <= 80));
    }
}
