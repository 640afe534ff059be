//! "Did you mean": the name nearest to a mistyped one.

/// How alike two names must be, from 0 to 1. clap uses the same measure and bound for commands and flags.
const ALIKE: f64 = 0.7;

/// The most similar of `names`. A name also counts by its last part, as `--model` reads it.
pub fn similar<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_lowercase();
    let likeness = |name: &str| {
        let name = name.to_lowercase();
        let last = name.rsplit(['/', ':']).next().unwrap_or(&name);
        let stem = last.strip_suffix(".safetensors").unwrap_or(last);
        [&name, last, stem].into_iter().map(|name| strsim::jaro(&typed, name)).fold(0.0, f64::max)
    };
    let rated =
        names.into_iter().map(|name| (likeness(name), name)).filter(|(likeness, _)| *likeness > ALIKE);
    rated.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_meant_and_a_far_one_is_not() {
        let names = ["org/dreamshaper", "org/realistic:v5.safetensors", "tiny"];
        for (typed, meant) in [
            ("org/dreamshapr", Some("org/dreamshaper")),
            ("Dreamshaper", Some("org/dreamshaper")),
            ("v6.safetensors", Some("org/realistic:v5.safetensors")),
            ("realistic/v5.safetensors", Some("org/realistic:v5.safetensors")),
            ("zzz", None),
        ] {
            assert_eq!(similar(typed, names), meant, "{typed}");
        }
        assert_eq!(similar("anything", []), None);
    }
}
