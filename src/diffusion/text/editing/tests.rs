//! The goldens are A1111's own answers: `tests/golden/prompt_schedules.py`.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

const GOLDEN: &str = include_str!("../../../../tests/golden/prompt_schedules.json");

#[derive(Deserialize)]
struct Case {
    prompt: String,
    steps: u32,
    before: Option<u32>,
    stretches: Vec<(u32, String)>,
}

#[derive(Deserialize)]
struct Golden {
    written: Vec<Case>,
    random: Vec<Case>,
}

fn at(prompt: &str, steps: u32) -> Vec<(u32, String)> {
    all(prompt, PromptSteps { steps, before: None })
}

fn all(prompt: &str, steps: PromptSteps) -> Vec<(u32, String)> {
    stretches(prompt, steps).map(|stretch| (stretch.last, stretch.text)).collect()
}

#[test]
fn prompts_change_at_the_steps_of_a1111() {
    let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
    assert!(golden.written.len() > 60 && golden.random.len() > 1500);
    for Case { prompt, steps, before, stretches } in golden.written {
        assert_eq!(all(&prompt, PromptSteps { steps, before }), stretches, "{prompt:?}");
    }
    // A1111's grammar is ambiguous where stray brackets touch a group. Its parser then reads some groups as text.
    let (mut others, random) = (0, golden.random.len());
    for Case { prompt, steps, before, stretches } in golden.random {
        let found = all(&prompt, PromptSteps { steps, before });
        if found != stretches {
            assert!(stretches.len() <= found.len(), "{prompt:?} is {found:?}");
            others += 1;
        }
    }
    assert!(others * 100 <= random, "{others}");
}

#[test]
fn a_prompt_without_groups_is_one_stretch() {
    for prompt in ["", "a red heart", "(a:1.2) [b]", "[a:b]", "a: b | c", "日本 \\[x:y:0.5\\]", "[a|b] c|d"]
    {
        assert_eq!(at(prompt, 20), [(20, prompt.to_owned())]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_prompt_has_stretches_in_order(prompt in "[()\\[\\]:|.1 aé\\\\\n]{0,50}|.{0,30}", steps in 1u32..40) {
        let found = at(&prompt, steps);
        prop_assert!(found.is_sorted_by(|one, other| one.0 < other.0));
        prop_assert_eq!(found.last().unwrap().0, steps);
        prop_assert!(found[0].0 > 0 && found.iter().all(|(_, text)| text.len() <= prompt.len()));
    }
}

#[test]
fn hostile_prompts_take_linear_time() {
    for part in
        ["[a:", "[a|", "[", "(", "[a:b:1]", "[a|b]", "|", ":", "\\", "[[a]:", "]", "[(a:b:", "[a:b:1e9] "]
    {
        let prompt = part.repeat(65_536 / part.len());
        let start = Instant::now();
        stretches(&prompt, PromptSteps { steps: 500, before: None }).take(3).for_each(drop);
        assert!(start.elapsed() < Duration::from_secs(5), "{part}");
        let closed = prompt + &":1]".repeat(20_000);
        stretches(&closed, PromptSteps { steps: 500, before: None }).take(3).for_each(drop);
        assert!(start.elapsed() < Duration::from_secs(10), "{part}");
    }
}
