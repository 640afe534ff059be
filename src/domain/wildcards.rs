//! Wildcards of prompts, drawn by the seed: `{fox|cat}` is one of the two, `{2$$a|b|c}` two of them joined by `, `, and
//! `__animal__` a line of the operator's file `animal.txt` (`__dir/animal__` one of a folder in the folder).
//!
//! Both forms nest, also in the lines of files. `\{` is a plain brace. A brace that is never closed is text, and so is the
//! name of a file that a line names and that does not exist. LoRA tags in files are left out. The same seed draws the same
//! words, on every machine.

mod grammar;

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::{Deserialize, Serialize};

use self::grammar::{Node, parse};
use super::{MAX_PROMPT_BYTES, without_lora_tags};

/// The deepest level of braces, and of files that name files.
const DEEPEST: usize = 16;
/// The most choices for one prompt. Each one may read a file.
const MOST_DRAWS: usize = 200;
/// The bytes of files that are kept for the other prompts of a request, about.
const MOST_KEPT: usize = 16 << 20;

/// The operator's wildcards.
pub trait WildcardShelf: Debug + Send + Sync {
    /// Fails with a sentence that says which wildcards there are.
    fn find(&self, name: &str) -> Result<(), String>;
    /// The lines to choose from, at least one. None if there is no such wildcard. The error is a sentence.
    fn lines(&self, name: &str) -> Result<Option<Vec<String>>, String>;
}

/// The prompts of one picture, with nothing left to draw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrawnPrompts {
    pub prompt: String,
    pub negative_prompt: String,
}

/// Fails with a sentence if the prompt names a wildcard that does not exist, or nests too deep.
pub fn check_wildcards(prompt: &str, shelf: &dyn WildcardShelf) -> Result<(), String> {
    fn check(nodes: &[Node], shelf: &dyn WildcardShelf) -> Result<(), String> {
        for node in nodes {
            match node {
                Node::Text(_) => {}
                Node::File(name) => shelf.find(name)?,
                Node::Choice { options, .. } => options.iter().try_for_each(|option| check(option, shelf))?,
            }
        }
        Ok(())
    }
    check(&parse(prompt)?, shelf)
}

/// Draws the wildcards of one request. It keeps the files that it has read: a prompt may name one two hundred times, and
/// each picture names it again.
#[derive(Debug)]
pub struct WildcardDrawer<'a> {
    shelf: &'a dyn WildcardShelf,
    read: BTreeMap<String, Vec<String>>,
    /// Their bytes, about.
    kept: usize,
}

impl<'a> WildcardDrawer<'a> {
    pub fn new(shelf: &'a dyn WildcardShelf) -> Self {
        Self { shelf, read: BTreeMap::new(), kept: 0 }
    }

    /// The prompt with its wildcards drawn. `stream` keeps the prompts of one picture apart. The error is a sentence.
    pub fn draw(&mut self, prompt: &str, (seed, stream): (u64, u64)) -> Result<String, String> {
        let state = seed ^ stream.wrapping_mul(0xD134_2543_DE82_EF95);
        let random = SplitMix { state };
        let mut drawing = Drawing { files: self, random, draws: 0, drawn: String::new() };
        drawing.add(&parse(prompt)?, 0)?;
        Ok(drawing.drawn)
    }

    /// The line of a file that a random number chooses. None if there is no such file.
    fn line(&mut self, name: &str, random: u64) -> Result<Option<String>, String> {
        if !self.read.contains_key(name) {
            let Some(lines) = self.shelf.lines(name)? else { return Ok(None) };
            let bytes: usize = lines.iter().map(|line| line.len() + size_of::<String>()).sum();
            if self.kept + bytes > MOST_KEPT {
                self.read.clear();
                self.kept = 0;
            }
            self.kept += bytes;
            self.read.insert(name.to_owned(), lines);
        }
        Ok(self.read.get(name).and_then(|lines| lines.get(scaled(random, lines.len())).cloned()))
    }
}

/// One prompt that is being drawn.
struct Drawing<'a, 'b> {
    files: &'a mut WildcardDrawer<'b>,
    random: SplitMix,
    draws: usize,
    drawn: String,
}

impl Drawing<'_, '_> {
    fn add(&mut self, nodes: &[Node], depth: usize) -> Result<(), String> {
        for node in nodes {
            match node {
                Node::Text(text) => self.text(text)?,
                Node::File(name) => self.file(name, depth)?,
                Node::Choice { count, options } => {
                    let mut left: Vec<usize> = (0..options.len()).collect();
                    for index in 0..(*count).min(options.len()) {
                        if index > 0 {
                            self.text(", ")?;
                        }
                        let chosen = left.swap_remove(self.below(left.len())?);
                        self.add(&options[chosen], depth)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, name: &str, depth: usize) -> Result<(), String> {
        if depth == DEEPEST {
            return Err(format!(
                "The wildcard {name} names wildcards that name wildcards, more than {DEEPEST} levels deep."
            ));
        }
        let draw = self.below(usize::MAX)?;
        match self.files.line(name, draw as u64)? {
            Some(line) => self.add(&parse(&without_lora_tags(&line))?, depth + 1),
            None => self.text(&format!("__{name}__")),
        }
    }

    fn text(&mut self, text: &str) -> Result<(), String> {
        if self.drawn.len() + text.len() > MAX_PROMPT_BYTES {
            return Err(format!("With its wildcards drawn it has more than {MAX_PROMPT_BYTES} bytes."));
        }
        self.drawn.push_str(text);
        Ok(())
    }

    /// A random number below `count`.
    fn below(&mut self, count: usize) -> Result<usize, String> {
        if self.draws == MOST_DRAWS {
            return Err(format!("It draws more than {MOST_DRAWS} wildcards."));
        }
        self.draws += 1;
        Ok(scaled(self.random.next(), count))
    }
}

/// A number below `count`, as far into its range as `random` is into that of all numbers.
fn scaled(random: u64, count: usize) -> usize {
    usize::try_from((u128::from(random) * count as u128) >> 64).unwrap_or(0)
}

/// Vigna's `SplitMix64`: a good stream from any seed, also from neighbours.
struct SplitMix {
    state: u64,
}

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug)]
    struct Shelf;

    impl WildcardShelf for Shelf {
        fn find(&self, name: &str) -> Result<(), String> {
            self.lines(name)?.map(drop).ok_or_else(|| format!("There is no wildcard {name}."))
        }

        fn lines(&self, name: &str) -> Result<Option<Vec<String>>, String> {
            let lines = |lines: &[&str]| Ok(Some(lines.iter().map(|line| (*line).to_owned()).collect()));
            match name {
                "animal" => lines(&["fox", "cat", "{red|blue} owl"]),
                "dir/scene" => lines(&["a __animal__ in __place__"]),
                "loop" => lines(&["__loop__"]),
                "bomb" => lines(&["__bomb__ __bomb__"]),
                "long" => lines(&[&"x".repeat(60_000)]),
                _ => Ok(None),
            }
        }
    }

    fn draw(prompt: &str, seed: u64) -> Result<String, String> {
        WildcardDrawer::new(&Shelf).draw(prompt, (seed, 0))
    }

    /// All that a hundred seeds draw.
    fn all(prompt: &str) -> BTreeSet<String> {
        (0..100).map(|seed| draw(prompt, seed).unwrap()).collect()
    }

    fn set(texts: &[&str]) -> BTreeSet<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn seeds_draw_every_option_and_each_draws_the_same_again() {
        assert_eq!(all("a {fox|cat}!"), set(&["a fox!", "a cat!"]));
        assert_eq!(all("{a|{b|c}}{|d}"), set(&["a", "b", "c", "ad", "bd", "cd"]));
        assert_eq!(all("{a|[b|c]|(d:1.2)}"), set(&["a", "[b|c]", "(d:1.2)"]));
        assert_eq!(all("{2$$a|b|c}"), set(&["a, b", "b, a", "a, c", "c, a", "b, c", "c, b"]));
        assert_eq!(all("{9$$a}"), set(&["a"]));
        assert_eq!(all("a __animal__"), set(&["a fox", "a cat", "a red owl", "a blue owl"]));
        let scenes = all("__dir/scene__");
        assert!(scenes.contains("a fox in __place__") && scenes.len() == 4, "{scenes:?}");
        assert_eq!(draw("{a|b|c|d|e|f}", 7), draw("{a|b|c|d|e|f}", 7));
        // A change here would change every picture of these seeds.
        assert_eq!((0..8).map(|seed| draw("{a|b|c|d}", seed).unwrap()).collect::<String>(), "dccabbcb");
    }

    #[test]
    fn both_prompts_of_a_picture_are_drawn_on_their_own() {
        let drawn = |stream| {
            (0..32).map(move |seed| WildcardDrawer::new(&Shelf).draw("{a|b}", (seed, stream)).unwrap())
        };
        assert!(drawn(0).ne(drawn(1)));
    }

    #[test]
    fn what_is_no_wildcard_stays_as_it_is() {
        for prompt in [
            "",
            "{a|b",
            "a}b|c",
            r"\{a|b\}",
            "a__b",
            "____",
            "__a",
            "snake_case_",
            "__ a__",
            "[a|b]",
            "{2$$a|b",
        ] {
            assert_eq!(draw(prompt, 1).unwrap(), prompt);
            assert_eq!(check_wildcards(prompt, &Shelf), Ok(()));
        }
        assert_eq!(draw("__nobody__", 1).unwrap(), "__nobody__");
    }

    #[test]
    fn unknown_names_and_endless_files_are_refused_with_a_sentence() {
        assert_eq!(check_wildcards("{a|__nobody__}", &Shelf).unwrap_err(), "There is no wildcard nobody.");
        assert!(draw("__loop__", 1).unwrap_err().contains("more than 16 levels deep"));
        assert!(draw("__bomb__", 1).is_err());
        assert_eq!(draw(&"{a}".repeat(300), 1).unwrap_err(), "It draws more than 200 wildcards.");
        assert!(draw("__long__ __long__", 1).unwrap_err().ends_with("more than 65536 bytes."));
        assert!(draw(&"{".repeat(60_000), 1).unwrap_err().contains("nest deeper"));
    }

    #[test]
    fn a_file_is_read_once_for_all_pictures() {
        #[derive(Debug, Default)]
        struct Counted(AtomicUsize);

        impl WildcardShelf for Counted {
            fn find(&self, _name: &str) -> Result<(), String> {
                Ok(())
            }

            fn lines(&self, name: &str) -> Result<Option<Vec<String>>, String> {
                self.0.fetch_add(1, Ordering::Relaxed);
                Shelf.lines(name)
            }
        }

        let shelf = Counted::default();
        let mut drawer = WildcardDrawer::new(&shelf);
        for seed in 0..10 {
            let prompt = "__animal__ ".repeat(100);
            assert_eq!(drawer.draw(&prompt, (seed, 0)), draw(&prompt, seed));
        }
        assert_eq!(shelf.0.load(Ordering::Relaxed), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn any_text_is_drawn_or_refused(prompt in "[{}|_a$2\\\\\\[\\] é]{0,60}", seed: u64) {
            let _ = draw(&prompt, seed);
        }
    }
}
