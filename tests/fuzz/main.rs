//! Fuzzing: any bytes from outside give a result or an error, never a panic, and within a time limit.
//!
//! Each target mutates a corpus of known inputs at random for `STABLEHAND_FUZZ_SECONDS` (default 2), or as many times as
//! `STABLEHAND_FUZZ_RUNS` says. A failure prints the seed and the input; `STABLEHAND_FUZZ_SEED` repeats a run. cargo-fuzz
//! would need a nightly compiler.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod peak_memory;
#[path = "../golden/torch_writer.rs"]
#[expect(dead_code, reason = "this test only writes archives")]
mod torch_writer;
mod weights;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use stablehand::diffusion::image::{transparent_mask, upright_size};
use stablehand::diffusion::{
    MAX_WEIGHT, Model, Piece, RgbImage, SchedulerConfig, decode_image, encode_png, parse_prompt,
};
use stablehand::domain::{GenerationInput, ImageSource, MAX_IMAGE_PIXELS, Policy};

/// The time limit for one input, while the other targets share the cores.
const PATIENCE: Duration = Duration::from_secs(5);

/// A random generator (xorshift64*): small, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Texts that often break parsers.
const TOKENS: [&[u8]; 48] = [
    b"(",
    b")",
    b"[",
    b"]",
    b":",
    b"\\",
    b"BREAK",
    b"(a:1.3)",
    b"(((((",
    b"]]]]]",
    b":nan",
    b":1e999",
    b":-1",
    b"\0",
    b"\xff\xfe",
    b"\xf0\x9f\x98\x80",
    b"\xe2\x80\x8b",
    b"\xcc\x81",
    b"\"",
    b"{",
    b"}",
    b"null",
    b"-0",
    b"18446744073709551616",
    b"1e400",
    b"IHDR",
    b"IDAT",
    b"<|endoftext|>",
    // Of pickles.
    b"cos\nsystem\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch\nFloatStorage\n",
    b"ccollections\nOrderedDict\n)R",
    b"cargparse\nNamespace\n)\x81",
    b"X\x01\x00\x00\x00a",
    b"\x8c\x02os\x8c\x06system\x93",
    b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"J\xff\xff\xff\xff",
    b"q\x00",
    b"h\x00",
    b"\x94",
    b"\x85R",
    b"}(",
    b"]",
    b"u.",
    // Of archives and headers.
    b"PK\x01\x02",
    b"PK\x05\x06",
    b"\"shape\":[4294967295,4294967295]",
    b"\xff\xff\xff\xff",
];

/// An input from the corpus with a few random changes.
fn mutate(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = random.pick(corpus).clone();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len() + 1);
        let to = at + random.below((bytes.len() - at).min(64) + 1);
        match random.below(7) {
            0 => bytes.insert(at, u8::try_from(random.below(256)).unwrap()),
            1 => drop(bytes.drain(at..to)),
            2 => drop(bytes.splice(at..at, random.pick(&TOKENS).iter().copied())),
            3 => bytes[at..to].iter_mut().for_each(|byte| *byte ^= 1 << (random.0 % 8)),
            4 => {
                let repeated = bytes[at..to].repeat(random.below(40));
                drop(bytes.splice(at..at, repeated));
            }
            5 => {
                let other = random.pick(corpus);
                let (from, len) = (random.below(other.len() + 1), random.below(64));
                drop(bytes.splice(at..to, other[from..].iter().take(len).copied()));
            }
            _ => bytes.truncate(at.max(1)),
        }
    }
    bytes.truncate(100_000);
    bytes
}

/// An input from the corpus with one or two bytes or tokens written over others: what has lengths and offsets in it stays
/// whole enough to be read on.
fn mutate_in_place(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = random.pick(corpus).clone();
    for _ in 0..=random.below(2) {
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            1 => bytes[at] ^= 1 << (random.next() % 8),
            2 => bytes[at] = bytes[random.below(bytes.len())],
            _ => {
                let token = random.pick(&TOKENS);
                let room = token.len().min(bytes.len() - at);
                bytes[at..at + room].copy_from_slice(&token[..room]);
            }
        }
    }
    bytes
}

fn fuzz(name: &str, corpus: &[&[u8]], target: impl Fn(&[u8])) {
    fuzz_with(name, corpus, mutate, target);
}

fn fuzz_with(
    name: &str,
    corpus: &[&[u8]],
    mutate: impl Fn(&[Vec<u8>], &mut Random) -> Vec<u8>,
    target: impl Fn(&[u8]),
) {
    let corpus: Vec<Vec<u8>> = corpus.iter().map(|input| input.to_vec()).collect();
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let time = Duration::from_secs(number("STABLEHAND_FUZZ_SECONDS").unwrap_or(2));
    let wanted_runs = number("STABLEHAND_FUZZ_RUNS");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("STABLEHAND_FUZZ_SEED").unwrap_or(now.as_secs() ^ u64::from(now.subsec_nanos())).max(1);
    let mut random = Random(seed);
    let (started, mut runs) = (Instant::now(), 0_u64);
    while wanted_runs.map_or_else(|| started.elapsed() < time, |wanted| runs < wanted) {
        let input = if runs < corpus.len() as u64 {
            corpus[usize::try_from(runs).unwrap()].clone()
        } else {
            mutate(&corpus, &mut random)
        };
        let fails = || {
            let since = Instant::now();
            let outcome = catch_unwind(AssertUnwindSafe(|| target(&input)));
            outcome.is_err() || since.elapsed() > PATIENCE
        };
        let since = Instant::now();
        // Twice: a machine that was busy with something else is not the input's fault.
        if fails() && fails() {
            let file = env::temp_dir().join(format!("stablehand-fuzz-{name}-{seed}"));
            fs::write(&file, &input).unwrap();
            panic!(
                "{name}: seed {seed}, run {runs}, {:.1?}; the input is in {}: {:?}",
                since.elapsed(),
                file.display(),
                String::from_utf8_lossy(&input[..input.len().min(400)])
            );
        }
        runs += 1;
    }
    println!("{name}: {runs} inputs from the seed {seed} in {:.0?}", started.elapsed());
}

const PROMPTS: [&[u8]; 9] = [
    b"a red fox",
    b"(masterpiece:1.2), [blurry], a (red (shiny:1.5)) fox \\(animal\\)",
    b"((((((((((a))))))))))",
    b"(a:(b:1.2):3)",
    b"a BREAK b BREAK c",
    b"[a|b] [a:b:0.5] :",
    "a café, 日本の猫 😀, ein großer Bär".as_bytes(),
    b"one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen, fourteen, fifteen",
    b"",
];

#[test]
#[ignore = "runs for seconds; .ci/run says for how many"]
fn prompts() {
    fuzz("prompts", &PROMPTS, |input| {
        let text = String::from_utf8_lossy(input);
        for piece in parse_prompt(&text) {
            let Piece::Text(_, weight) = piece else { continue };
            assert!((-MAX_WEIGHT..=MAX_WEIGHT).contains(&weight), "a weight of {weight}");
        }
    });
}

#[test]
#[ignore = "runs for seconds; .ci/run says for how many"]
fn tokens() {
    let model = Model::open(None, None).unwrap();
    let tokenizer = model.tokenizer();
    fuzz("tokens", &PROMPTS, |input| {
        let tokens = tokenizer.encode(&String::from_utf8_lossy(input)).unwrap();
        assert_eq!(tokens.ids.len(), tokenizer.window());
        assert_eq!(tokens.ids[0], tokenizer.bos_id());
        assert!(tokens.ids.contains(&tokenizer.eos_id()));
    });
}

#[test]
#[ignore = "runs for seconds; .ci/run says for how many"]
fn png_texts() {
    let image = RgbImage { width: 2, height: 1, pixels: vec![7; 6] };
    fuzz("png_texts", &PROMPTS, |input| {
        let text = String::from_utf8_lossy(input);
        let png = encode_png(&image, &[("parameters", &text)]).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(&png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, image.pixels);
        let _ = stablehand::diffusion::image::png_texts(input);
    });
}

#[test]
#[ignore = "runs for seconds; .ci/run says for how many"]
fn pictures() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../golden/decode.json")).unwrap();
    let files: Vec<Vec<u8>> =
        cases.iter().map(|case| STANDARD.decode(case["file"].as_str().unwrap()).unwrap()).collect();
    let corpus: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    fuzz("pictures", &corpus, |input| {
        let ((), most) = peak_memory::during(|| {
            let _ = ImageSource::parse(&String::from_utf8_lossy(input));
            // Both checks, because `from_bytes` refuses some inputs early.
            let _ = ImageSource::from_bytes(input.to_vec());
            // The header's size is the decoded one, and transparency has a pixel for each of the picture's.
            let size = upright_size(input);
            if let Ok(Some(mask)) = transparent_mask(input) {
                assert_eq!(mask.size(), size.unwrap());
            }
            if let Ok(image) = decode_image(input) {
                assert_eq!(image.pixels.len() as u64, u64::from(image.width) * u64::from(image.height) * 3);
            }
        });
        // The widest pixels of the largest picture, and twice as much to work with.
        assert!(most as u64 <= MAX_IMAGE_PIXELS * 24, "{most} bytes");
    });
}

#[test]
#[ignore = "runs for seconds; .ci/run says for how many"]
fn requests() {
    let rules = Model::open(None, None).unwrap().rules().clone();
    let full = json!({
        "prompt": "a dog", "negative_prompt": "rain", "width": 512, "height": 768, "num_outputs": 3,
        "num_inference_steps": 20, "cache_interval": 3, "guidance_scale": 7.5, "scheduler": "K-LMS", "seed": 7, "karras": true, "spacing": "karras", "eta": 0.5, "s_churn": 1.0, "s_tmin": 0.0, "s_tmax": 10.0, "s_noise": 1.0, "guidance_rescale": 0.5, "guidance_end": 0.7, "precision": "int8",
        "noise": "cpu", "vae": "tiny", "clip_skip": 1, "nsfw": false, "prompt_strength": 0.8,
    });
    let full = full.to_string();
    let corpus: [&[u8]; 3] =
        [full.as_bytes(), br#"{"prompt":"a"}"#, br#"{"prompt":null,"size":[1,{"a":[]}]}"#];
    fuzz("requests", &corpus, |input| {
        let Ok(value) = serde_json::from_slice::<Value>(input) else { return };
        match GenerationInput::parse(&value, &rules) {
            Ok(input) => {
                assert!(input.size.width > 0 && input.size.width <= 12_288, "{:?}", input.size);
                assert!((1..=500).contains(&input.num_inference_steps) && input.guidance_scale > 0.0);
            }
            Err(violations) => assert!(!violations.0.is_empty()),
        }
    });
}

#[test]
#[ignore = "runs for seconds; .ci/run says for how many"]
fn policies() {
    let corpus: [&[u8]; 2] =
        [br#"{"executionTimeout": 600000, "ttl": 86400000, "lowPriority": true}"#, br#"{"ttl":-1.5e300}"#];
    fuzz("policies", &corpus, |input| {
        let Ok(value) = serde_json::from_slice::<Value>(input) else { return };
        let _ = Policy::parse(&value);
    });
}

/// Each file in turn holds what is not what it was.
#[test]
#[ignore = "runs for seconds; .ci/run says for how many"]
fn model_configs() {
    const FILES: [&str; 7] = [
        "model_index.json",
        "unet/config.json",
        "vae/config.json",
        "text_encoder/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/special_tokens_map.json",
    ];
    let folder = tempfile::tempdir().unwrap();
    let from = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-sd");
    for part in ["scheduler", "tokenizer", "text_encoder", "unet", "vae", "graphs"] {
        fs::create_dir(folder.path().join(part)).unwrap();
        for entry in fs::read_dir(from.join(part)).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), folder.path().join(part).join(entry.file_name())).unwrap();
        }
    }
    let texts: Vec<Vec<u8>> = FILES.iter().map(|file| fs::read(from.join(file)).unwrap()).collect();
    let corpus: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
    let turn = std::cell::Cell::new(0);
    fuzz("model_configs", &corpus, |input| {
        let number = turn.replace((turn.get() + 1) % FILES.len());
        let file = folder.path().join(FILES[number]);
        fs::write(&file, input).unwrap();
        if let Err(error) = Model::open(Some(folder.path()), None) {
            assert!(!error.to_string().contains('\n'), "{error}");
        }
        fs::write(&file, &texts[number]).unwrap();
    });
}

#[test]
#[ignore = "runs for seconds; .ci/run says for how many"]
fn scheduler_configs() {
    let corpus: [&[u8]; 1] = [include_bytes!("../../models/tiny-sd/scheduler/scheduler_config.json")];
    fuzz("scheduler_configs", &corpus, |input| {
        let _ = SchedulerConfig::from_json(&String::from_utf8_lossy(input));
    });
}
