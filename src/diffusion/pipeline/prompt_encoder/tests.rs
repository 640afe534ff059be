//! Prompts as the UNet reads them: against A1111's, and hostile ones.

use ndarray::{Array3, Axis, s};
use serde_json::Value;

use super::*;
use crate::diffusion::files::ModelFiles;
use crate::diffusion::nets::{PartSession, Vocabulary};
use crate::diffusion::text::chunks;
use crate::domain::{CheckedPrompt, ModelPart, PromptCheck as _};
use crate::runtime::{DeviceChoice, Runtime};

const GOLDEN: &str = include_str!("../../../../tests/golden/embedding.json");

fn encoder(tokens_read: Option<usize>) -> PromptEncoder {
    let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
    let (files, tokenizer) = ModelFiles::open(None).unwrap();
    let graph = PartSession::load(files.part(ModelPart::TextEncoder).unwrap(), &runtime).unwrap();
    let text_encoder = TextEncoder::new(graph, None, Vocabulary::default()).unwrap();
    PromptEncoder::new(Arc::new(tokenizer), text_encoder, tokens_read)
}

const STEPS: PromptSteps = PromptSteps { steps: 50, before: None };

/// What the UNet reads at the first step.
struct First {
    positive: Array3<f32>,
    negative: Option<Array3<f32>>,
    cut: Option<(usize, usize)>,
}

fn encode(encoder: &mut PromptEncoder, input: &GenerationInput) -> Result<First, DiffusionError> {
    let prompts = encoder.encode(input, &[], STEPS, None, &[])?;
    Ok(First {
        positive: prompts.positives(0, 0).next().unwrap().0.values().clone(),
        negative: prompts.negative(0, 0).map(|negative| negative.values().clone()),
        cut: prompts.cut,
    })
}

fn input(prompt: &str, negative_prompt: &str) -> GenerationInput {
    GenerationInput { negative_prompt: negative_prompt.to_owned(), ..GenerationInput::new(prompt) }
}

#[test]
fn weighted_and_long_prompts_are_encoded_as_in_a1111() {
    let mut encoder = encoder(None);
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    for case in golden["prompts"].as_array().unwrap() {
        let prompt = case["prompt"].as_str().unwrap();
        let ids: Vec<Vec<u32>> = serde_json::from_value(case["ids"].clone()).unwrap();
        let found = chunks(&encoder.tokenizer, &LearnedWords::none(), prompt).unwrap();
        assert_eq!(found.into_iter().map(|chunk| chunk.ids).collect::<Vec<_>>(), ids, "{prompt}");
        let embedding = encode(&mut encoder, &input(prompt, "")).unwrap().positive;
        assert_eq!(embedding.dim(), (1, 77 * ids.len(), 160), "{prompt}");
        for (chunk, expected) in
            embedding.axis_chunks_iter(Axis(1), 77).zip(case["values"].as_array().unwrap())
        {
            for (value, expected) in chunk.iter().step_by(41).zip(expected.as_array().unwrap()) {
                let expected = expected.as_f64().unwrap();
                let apart = (f64::from(*value) - expected).abs() / expected.abs().max(1.0);
                assert!(apart < 1e-5, "{prompt}: {value} is not {expected}");
            }
        }
    }
}

#[test]
fn a_plain_prompt_is_exactly_the_text_encoder_s_output() {
    let mut encoder = encoder(None);
    for prompt in ["", "a red heart on a blue background", "a fox, a cat, a house: 1.5"] {
        let tokens = encoder.tokenizer.encode(prompt).unwrap();
        assert_eq!(tokens.cut, 0);
        let plain = encoder.text_encoder.encode(&tokens, 1, None).unwrap();
        assert_eq!(encode(&mut encoder, &input(prompt, "")).unwrap().positive, plain, "{prompt}");
    }
}

#[test]
fn the_shorter_prompt_is_padded_with_empty_ones() {
    let mut encoder = encoder(None);
    let one = encode(&mut encoder, &input("a fox", "")).unwrap();
    let both = encode(&mut encoder, &input("a fox", "rain BREAK snow BREAK fog")).unwrap();
    let negative = both.negative.unwrap();
    assert_eq!((both.positive.dim().1, negative.dim().1), (3 * 77, 3 * 77));
    let parts: Vec<_> = both.positive.axis_chunks_iter(Axis(1), 77).collect();
    let empty = one.negative.unwrap();
    assert_eq!(parts, [one.positive.view(), empty.view(), empty.view()]);
    let unguided = GenerationInput { guidance_scale: 1.0, ..input("a fox", "rain BREAK snow") };
    let unguided = encode(&mut encoder, &unguided).unwrap();
    assert!(unguided.negative.is_none() && unguided.positive.dim().1 == 77);
}

#[test]
fn each_text_of_a_changing_prompt_is_encoded_once() {
    let mut encoder = encoder(None);
    let steps = PromptSteps { steps: 4, before: None };
    let request = input("a [fox|cat] AND [snow:ice:0.5] :0.3", "[rain::1]");
    let prompts = encoder.encode(&request, &[], steps, None, &[]).unwrap();
    assert_eq!(prompts.texts.len(), 6);
    let mut alone = |prompt: &str| encode(&mut encoder, &input(prompt, "")).unwrap().positive;
    for (step, [animal, ground]) in
        (0..).zip([["a fox", "snow"], ["a cat", "snow"], ["a fox", "ice"], ["a cat", "ice"]])
    {
        let (texts, weights): (Vec<_>, Vec<_>) =
            prompts.positives(0, step).map(|(text, weight)| (text.values(), weight)).unzip();
        assert_eq!((texts, weights), (vec![&alone(animal), &alone(ground)], vec![1.0, 0.3]), "{step}");
        let negative = prompts.negative(0, step).unwrap().values();
        assert_eq!(negative, &alone(if step == 0 { "rain" } else { "" }), "{step}");
    }
}

#[test]
fn texts_of_other_lengths_are_padded_as_in_a1111() {
    let mut encoder = encoder(None);
    let request = input("[a BREAK b:c:1] AND d", "e BREAK f BREAK g");
    let prompts = encoder.encode(&request, &[], STEPS, None, &[]).unwrap();
    let mut alone = |prompt: &str| encode(&mut encoder, &input(prompt, "")).unwrap().positive;
    let [c, d, empty] = ["c", "d", ""].map(&mut alone);
    let chunks = |text: &EncodedPrompt| {
        text.values().axis_chunks_iter(Axis(1), 77).map(|chunk| chunk.to_owned()).collect::<Vec<_>>()
    };
    let [first, second] =
        prompts.positives(0, 1).map(|(text, _)| chunks(text)).collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(first, [c, empty.clone(), empty.clone()], "alternatives end with empty prompts");
    let last_vector = d.slice(s![.., -1.., ..]).broadcast(d.dim()).unwrap().to_owned();
    assert_eq!(second, [d, last_vector, empty], "parts repeat their last vector");
}

#[test]
fn prompts_of_too_many_texts_are_refused() {
    let mut encoder = encoder(None);
    let many = "[a|b|c][d|e|f|g][h|i|j|k|l][m|n|o|p|q|r|s]";
    let check =
        crate::diffusion::pipeline::prompt_check::ChunkCheck::new(Arc::clone(&encoder.tokenizer), None);
    let checked = |prompt, steps| {
        check.check(&[CheckedPrompt { field: "prompt", picture: 0, parts: vec![prompt] }], steps)
    };
    assert_eq!(checked(many, 250), Ok(()));
    let sentence = "Its parts and changes make 257 texts, and each counts as many chunks as the longest: 1. At most \
                    256 chunks are allowed together; change less of it, or shorten it.";
    assert_eq!(checked(many, 500), Err(vec![("prompt", sentence.to_owned())]));
    let steps = PromptSteps { steps: 500, before: None };
    assert!(encoder.encode(&input(many, ""), &[], steps, None, &[]).is_err());
    // The text encoder pads all of them to the longest.
    let long = "BREAK ".repeat(20);
    let both = [("prompt", "[a|b|c|d|e|f|g|h|i|j|k|l|m|n]"), ("negative_prompt", &long)];
    let both = both.map(|(field, prompt)| CheckedPrompt { field, picture: 0, parts: vec![prompt] });
    assert!(check.check(&both[..1], 50).is_ok() && check.check(&both[1..], 50).is_ok());
    assert!(check.check(&both, 50).unwrap_err()[0].1.starts_with("Its parts and changes make 15 texts"));
    // Not all of the 250 texts are split: that would take long.
    let options: Vec<String> = (0..250).map(|option| option.to_string()).collect();
    let heavy = format!("{}[{}]", "BREAK ".repeat(30), options.join("|"));
    let sentence = checked(&heavy, 500).unwrap_err().remove(0).1;
    assert!(sentence.starts_with("Its parts and changes make 9 texts"), "{sentence}");
}

#[test]
fn pictures_are_checked_as_they_are_encoded() {
    let mut encoder = encoder(None);
    let check =
        crate::diffusion::pipeline::prompt_check::ChunkCheck::new(Arc::clone(&encoder.tokenizer), None);
    // A picture of 28 chunks twice, and as many with one chunk as still fit.
    for (others, fits) in [(199, true), (200, false)] {
        let drawn: Vec<_> = (0..=others)
            .map(|picture| DrawnPrompts {
                prompt: if picture == 0 { "BREAK ".repeat(28) } else { format!("fox {picture}") },
                negative_prompt: String::new(),
            })
            .collect();
        let checked: Vec<_> = (0..)
            .zip(&drawn)
            .flat_map(|(picture, drawn)| {
                [("prompt", &drawn.prompt), ("negative_prompt", &drawn.negative_prompt)]
                    .map(|(field, prompt)| CheckedPrompt { field, picture, parts: vec![prompt.as_str()] })
            })
            .collect();
        let refused = check.check(&checked, 50).err().map(|sentences| sentences[0].1.clone());
        let outcome = encoder.encode(&input("", ""), &drawn, STEPS, None, &[]);
        let error = outcome.err().map(|error| error.to_string());
        let is_same = match (&error, &refused) {
            (Some(error), Some(refused)) => error.ends_with(refused),
            (error, refused) => error.is_none() && refused.is_none(),
        };
        assert!(is_same && refused.is_none() == fits, "{others}: {error:?} {refused:?}");
    }
}

#[test]
fn a_unet_of_fixed_length_reads_the_first_chunks_and_the_cut_is_reported() {
    let long = input("a fox BREAK a cat", "");
    let mut fixed = encoder(Some(77));
    let cut = encode(&mut fixed, &long).unwrap();
    assert_eq!((cut.cut, cut.positive.dim().1), (Some((1, 2)), 77));
    assert_eq!(cut.positive, encode(&mut fixed, &input("a fox", "")).unwrap().positive);
    let padded = encode(&mut encoder(Some(154)), &input("a fox", "")).unwrap();
    assert_eq!((padded.cut, padded.positive.dim().1), (None, 154));
}

#[test]
fn hostile_prompts_are_encoded_or_refused_quickly() {
    let mut encoder = encoder(None);
    let check =
        crate::diffusion::pipeline::prompt_check::ChunkCheck::new(Arc::clone(&encoder.tokenizer), None);
    for (prompt, fits) in [
        ("(".repeat(65_536), true),
        ("(a)b".repeat(16_384), false),
        ("( )\t".repeat(16_384), true),
        ("a".repeat(65_536), false),
        ("word ".repeat(13_107), false),
        ("BREAK ".repeat(31), true),
        ("BREAK ".repeat(33), false),
        (",".repeat(65_536), false),
    ] {
        let started = std::time::Instant::now();
        let checked = [CheckedPrompt { field: "prompt", picture: 0, parts: vec![&prompt] }];
        let refused = check.check(&checked, 50).err().map(|mut sentences| sentences.remove(0).1);
        if fits {
            assert_eq!(refused, None, "{prompt:.20}");
            encode(&mut encoder, &input(&prompt, "")).unwrap();
        } else {
            let sentence = refused.unwrap();
            assert_eq!(sentence, "It fills more than 32 chunks of 75 tokens; shorten it.", "{prompt:.20}");
            assert!(encode(&mut encoder, &input(&prompt, "")).is_err());
        }
        // Well under a second even unoptimised; what is not linear takes minutes.
        assert!(started.elapsed().as_secs() < 10, "{prompt:.20} took {:?}", started.elapsed());
    }
}
