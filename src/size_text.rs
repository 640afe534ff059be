//! Writes sizes in bytes as text for people. Messages, tables and progress bars share this form.

/// The size as file managers show it, such as `8.5 MB`.
#[expect(clippy::cast_precision_loss, reason = "the text has one decimal")]
pub fn size_text(bytes: u64) -> String {
    let units = ["kB", "MB", "GB"];
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.*} {}", usize::from(value < 99.5), units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_look_as_in_a_file_manager() {
        for (bytes, shown) in [
            (0, "0.0 kB"),
            (776_000, "776 kB"),
            (8_456_789, "8.5 MB"),
            (999_600, "1.0 MB"),
            (3_438_000_000, "3.4 GB"),
        ] {
            assert_eq!(size_text(bytes), shown);
        }
    }
}
