//! The goldens are A1111's own answers: tests/golden/prompt.py.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

const GOLDEN: &str = include_str!("../../../../tests/golden/prompt.json");

#[derive(Deserialize)]
struct Case {
    prompt: String,
    pieces: Vec<(String, f64)>,
}

fn text(text: &str, weight: f32) -> Piece {
    Piece::Text(text.to_owned(), weight)
}

/// Texts equal and weights equal to a millionth.
fn alike(ours: &Piece, theirs: &(String, f64)) -> bool {
    match ours {
        Piece::Text(text, weight) => *text == theirs.0 && (f64::from(*weight) - theirs.1).abs() < 1e-6,
        // Theirs is a text of negative weight, which brackets around it multiply.
        Piece::Break => theirs.0 == "BREAK" && theirs.1 < 0.0,
    }
}

#[test]
fn prompts_are_split_as_in_a1111() {
    let cases: Vec<Case> = serde_json::from_str(GOLDEN).unwrap();
    assert!(cases.len() > 400);
    for case in cases {
        let pieces = parse(&case.prompt);
        let equal = pieces.len() == case.pieces.len()
            && pieces.iter().zip(&case.pieces).all(|(ours, theirs)| alike(ours, theirs));
        assert!(equal, "{:?} is {pieces:?}, not {:?}", case.prompt, case.pieces);
    }
}

#[test]
fn a_plain_prompt_is_one_piece_of_weight_one() {
    for prompt in ["", "a red heart", "a: b, c; {d|e} <f>", "日本\n😀", "BREAKFAST"] {
        assert_eq!(parse(prompt), [text(prompt, 1.0)]);
    }
}

#[test]
fn break_works_inside_brackets() {
    assert_eq!(parse("(a BREAK b:1.5)"), [text("a", 1.5), Piece::Break, text("b", 1.5)]);
}

#[test]
fn weights_are_clamped() {
    for (prompt, weight) in [
        ("(a:-1)", -1.0),
        ("(a:-0.5)", -0.5),
        ("((a:-2):-3)", 6.0),
        ("(a:-99)", -MAX_WEIGHT),
        ("(a:0)", 0.0),
        ("(a:1e9)", 1.1),
        ("((a:10):10)", MAX_WEIGHT),
        (&format!("(a:{})", "9".repeat(400)), MAX_WEIGHT),
        (&format!("{}a", "(".repeat(60_000)), MAX_WEIGHT),
        (&format!("{}a", "[".repeat(60_000)), 0.0),
        (&format!("{}(a:0)", "(".repeat(60_000)), 0.0),
        (&format!("{}{}a", "(".repeat(60_000), "[".repeat(60_000)), 0.0),
    ] {
        assert!(
            matches!(&parse(prompt)[..], [Piece::Text(_, found)] if (found - weight).abs() < 1e-6),
            "{prompt:.40}"
        );
    }
    assert_eq!(parse("(a:nan)"), [text("a:nan", 1.1)]);
    assert_eq!(parse("(a:1.2.3)"), [text("a:1.2.3", 1.1)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_brackets_keep_the_letters_in_order(prompt in "[()\\[\\]:.1 aé😀\\\\]{0,60}|.{0,40}|((BREAK|a|\\(|\\)) ?){0,20}") {
        let letters = |text: &str| text.chars().filter(|c| c.is_alphabetic()).collect::<String>();
        let mut whole = String::new();
        for piece in parse(&prompt) {
            match piece {
                Piece::Text(text, weight) => {
                    prop_assert!(weight.abs() <= MAX_WEIGHT);
                    whole.push_str(&text);
                }
                Piece::Break => whole.push_str("BREAK"),
            }
        }
        prop_assert_eq!(letters(&whole), letters(&prompt));
    }
}

#[test]
fn hostile_prompts_take_linear_time() {
    for part in ["(a", "[a", "(a[b", "a ", "(", "\\", ":1", ": ", "BREAK ", "(a:1.1)", "([a)b]", ")"] {
        let prompt = part.repeat(100_000);
        let start = Instant::now();
        parse(&prompt);
        // About ten milliseconds; a quadratic algorithm would take minutes.
        assert!(start.elapsed() < Duration::from_secs(5), "{part}");
    }
}
