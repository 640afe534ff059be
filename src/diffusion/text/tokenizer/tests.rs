//! The goldens are transformers' own answers: tests/golden/tokenizer.py.

use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use super::*;

const VOCAB: &[u8] = include_bytes!("../../../../models/tiny-sd/tokenizer/vocab.json");
const MERGES: &[u8] = include_bytes!("../../../../models/tiny-sd/tokenizer/merges.txt");
const CONFIG: &[u8] = include_bytes!("../../../../models/tiny-sd/tokenizer/tokenizer_config.json");
const MAP: &[u8] = include_bytes!("../../../../models/tiny-sd/tokenizer/special_tokens_map.json");
const TINY_SD: &str = include_str!("../../../../tests/golden/tokenizer_tiny_sd.json");
const CONFIGS: &str = include_str!("../../../../tests/golden/tokenizer_configs.json");

#[derive(Deserialize)]
struct Golden {
    #[serde(default)]
    name: String,
    config: Option<Value>,
    special_tokens_map: Option<Value>,
    added_tokens: Option<Value>,
    bos: u32,
    eos: u32,
    pad: u32,
    max_length: usize,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    #[serde(default = "once")]
    repeat: usize,
    ids: Vec<u32>,
    count: usize,
}

fn once() -> usize {
    1
}

fn files() -> TokenizerFiles<'static> {
    TokenizerFiles { vocab: Some(VOCAB), merges: Some(MERGES), ..TokenizerFiles::default() }
}

/// The built-in model's tokenizer, also for tests of other modules.
pub(in crate::diffusion) fn tiny_sd() -> Tokenizer {
    Tokenizer::new(TokenizerFiles { config: Some(CONFIG), special_tokens_map: Some(MAP), ..files() }).unwrap()
}

fn check(tokenizer: &Tokenizer, golden: &Golden) {
    let about = (tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.pad_id(), tokenizer.window());
    assert_eq!(about, (golden.bos, golden.eos, golden.pad, golden.max_length), "{}", golden.name);
    let wrong: Vec<String> = golden
        .cases
        .iter()
        .filter_map(|case| {
            let tokens = tokenizer.encode(&case.text.repeat(case.repeat)).unwrap();
            let mut ids = case.ids.clone();
            ids.resize(golden.max_length, golden.pad);
            let expected = Tokens { ids, cut: case.count.saturating_sub(golden.max_length) };
            (tokens != expected).then(|| format!("{:?} x {}", case.text, case.repeat))
        })
        .collect();
    assert!(wrong.is_empty(), "{}: {wrong:#?}", golden.name);
}

fn refusal(files: TokenizerFiles<'_>) -> String {
    Tokenizer::new(files).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn awkward_strings_have_the_tokens_of_the_reference() {
    let golden: Golden = serde_json::from_str(TINY_SD).unwrap();
    assert!(golden.cases.len() > 200);
    check(&tiny_sd(), &golden);
}

#[test]
fn published_configurations_are_read_as_in_the_reference() {
    let goldens: Vec<Golden> = serde_json::from_str(CONFIGS).unwrap();
    for golden in &goldens {
        let [config, map, added] = [&golden.config, &golden.special_tokens_map, &golden.added_tokens]
            .map(|value| value.as_ref().map(Value::to_string));
        let tokenizer = Tokenizer::new(TokenizerFiles {
            config: config.as_ref().map(String::as_bytes),
            special_tokens_map: map.as_ref().map(String::as_bytes),
            added_tokens: added.as_ref().map(String::as_bytes),
            ..files()
        });
        check(&tokenizer.unwrap(), golden);
    }
}

#[test]
fn tokenizer_json_alone_is_enough() {
    let vocab: Value = serde_json::from_slice(VOCAB).unwrap();
    let merges: Vec<&str> = std::str::from_utf8(MERGES).unwrap().lines().skip(1).collect();
    let pairs: Vec<Vec<&str>> = merges.iter().map(|line| line.split(' ').collect()).collect();
    let golden: Golden = serde_json::from_str(TINY_SD).unwrap();
    for merges in [json!(merges), json!(pairs)] {
        let file = json!({"version": "1.0", "model": {"type": "BPE", "vocab": vocab, "merges": merges},
            "added_tokens": [{"id": 1805, "content": "<|startoftext|>", "normalized": false, "special": true}]})
        .to_string();
        let files = TokenizerFiles { tokenizer_json: Some(file.as_bytes()), ..TokenizerFiles::default() };
        check(&Tokenizer::new(files).unwrap(), &golden);
    }
}

#[test]
fn a_broken_folder_is_one_sentence() {
    assert_eq!(
        refusal(TokenizerFiles { vocab: Some(VOCAB), ..TokenizerFiles::default() }),
        "the tokenizer has neither vocab.json with merges.txt nor tokenizer.json"
    );
    assert_eq!(
        refusal(TokenizerFiles { merges: Some(b"#version: 0.2\nr o\nno_space\n"), ..files() }),
        "the tokenizer's merges have 'no_space' instead of two strings with a space between"
    );
    let longest = format!("{0} {0}", "background</w>");
    assert_eq!(
        refusal(TokenizerFiles { merges: Some(longest.as_bytes()), ..files() }),
        "the tokenizer's merges use 'background</w>background</w>', which its vocabulary lacks"
    );
    assert_eq!(
        refusal(TokenizerFiles { config: Some(br#"{"unk_token": "<unk>"}"#), ..files() }),
        "the tokenizer's unk token '<unk>' is not in its vocabulary"
    );
    assert!(
        refusal(TokenizerFiles { vocab: Some(&VOCAB[..99]), ..files() })
            .starts_with("the tokenizer's vocab.json cannot be read: ")
    );
}

#[test]
fn a_missing_or_absurd_window_is_77() {
    for length in ["1e30", "0", "-5", "null", "1"] {
        let config = format!("{{\"model_max_length\": {length}}}");
        let tokenizer =
            Tokenizer::new(TokenizerFiles { config: Some(config.as_bytes()), ..files() }).unwrap();
        assert_eq!(tokenizer.window(), 77);
    }
}

/// Prints a table; CI machines are shared, so nothing is asserted: `--ignored --nocapture`.
#[test]
#[ignore = "prints times"]
fn times() {
    let start = Instant::now();
    let tokenizer = tiny_sd();
    println!("built in {:?}", start.elapsed());
    let golden: Golden = serde_json::from_str(TINY_SD).unwrap();
    for case in golden.cases.iter().filter(|case| case.repeat > 1 || case.text.starts_with("a photo")) {
        let text = case.text.repeat(case.repeat);
        let best = (0..5)
            .map(|_| {
                let start = Instant::now();
                tokenizer.encode(&text).unwrap();
                start.elapsed()
            })
            .min();
        println!("{:>9.3?} {:>6} bytes {:?}", best.unwrap(), text.len(), case.text);
    }
}
