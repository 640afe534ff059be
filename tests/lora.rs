//! LoRAs and textual inversions change what the built-in model draws, as much as the request says.
//! Their files are those of `tests/golden/make_lora.py` and `make_lora_kinds.py`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use safetensors::{SafeTensors, serialize_to_file};
use serde_json::{Value, json};
use stablehand::diffusion::{AddOnFolders, Generation, Model, Picture, Pipeline};
use stablehand::domain::{GenerationInput, InputRules};
use stablehand::runtime::{DeviceChoice, Runtime};
use tempfile::TempDir;

/// The built-in model with a folder of add-ons.
struct Studio {
    pipeline: Pipeline,
    rules: InputRules,
    dir: TempDir,
}

impl Studio {
    fn new(lora_memory: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (loras, embeddings) = (dir.path().join("loras"), dir.path().join("embeddings"));
        fs::create_dir_all(loras.join("styles")).unwrap();
        fs::create_dir_all(&embeddings).unwrap();
        copy("kohya", &loras.join("kohya.safetensors"));
        copy("original_half", &loras.join("styles/unet only.safetensors"));
        copy("peft", &loras.join("peft.safetensors"));
        copy("word.embedding", &embeddings.join("zorblax.safetensors"));
        let folders = AddOnFolders {
            controlnets: dir.path().join("controlnets"),
            loras,
            embeddings,
            upscalers: "/nowhere".into(),
            tiny_vaes: "/nowhere".into(),
            wildcards: "/nowhere".into(),
            lora_memory,
            look_every: Duration::ZERO,
        };
        let model = Model::open(None, Some(folders)).unwrap();
        let pipeline = model.load(&Runtime::load(DeviceChoice::Cpu).unwrap()).unwrap();
        Self { pipeline, rules: model.rules().clone(), dir }
    }

    fn input(&self, fields: &Value) -> GenerationInput {
        let mut input =
            json!({"prompt": "a red heart", "width": 64, "height": 64, "num_inference_steps": 3, "seed": 5});
        input.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        GenerationInput::parse(&input, &self.rules).unwrap()
    }

    fn begin(&mut self, fields: &Value) -> Generation {
        let input = self.input(fields);
        self.pipeline.begin(&input, 5).unwrap()
    }

    fn finish(&mut self, batch: &mut [&mut Generation]) -> Vec<Picture> {
        while batch.iter().any(|generation| !generation.is_done()) {
            self.pipeline.step(batch).unwrap();
        }
        batch.iter().flat_map(|generation| self.pipeline.finish(generation).unwrap()).collect()
    }

    fn picture(&mut self, fields: &Value) -> Picture {
        let input = self.input(fields);
        self.pipeline.draw(&input, 5).unwrap().remove(0)
    }

    fn draw(&mut self, fields: &Value) -> Vec<u8> {
        self.picture(fields).image.pixels
    }
}

/// The largest difference of two pictures, of 255.
fn furthest(a: &[u8], b: &[u8]) -> u8 {
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/lora/{name}.safetensors"))
}

fn copy(name: &str, to: &Path) {
    fs::copy(golden(name), to).unwrap();
}

/// The text that A1111 reads.
fn infotext(picture: &Picture) -> String {
    text(picture, "parameters")
}

fn text(picture: &Picture, keyword: &str) -> String {
    let reader = png::Decoder::new(std::io::Cursor::new(&picture.png)).read_info().unwrap();
    let texts = &reader.info().uncompressed_latin1_text;
    texts.iter().find(|text| text.keyword == keyword).unwrap().text.clone()
}

#[test]
fn a_lora_changes_the_picture_and_scale_0_changes_nothing() {
    let mut studio = Studio::new(1 << 30);
    let plain = studio.draw(&json!({}));
    let whole = studio.draw(&json!({"lora": "kohya"}));
    assert_ne!(plain, whole);
    assert_eq!(studio.draw(&json!({"lora": "kohya", "lora_scale": 0})), plain, "none of it");
    let half = studio.draw(&json!({"lora": "kohya.safetensors", "lora_scale": 0.5}));
    assert!(half != plain && half != whole, "half of it");
    assert_eq!(studio.draw(&json!({})), plain, "the model itself is as it was");
    assert_eq!(studio.draw(&json!({"lora": "kohya"})), whole, "kept");
    assert_eq!(Studio::new(0).draw(&json!({"lora": "kohya"})), whole, "not kept");
}

#[test]
fn a_tag_in_the_prompt_equals_the_field_and_is_not_a_word() {
    let mut studio = Studio::new(1 << 30);
    let by_field = studio.draw(&json!({"lora": "kohya", "lora_scale": 0.5}));
    assert_eq!(studio.draw(&json!({"prompt": "a red heart<lora:kohya:0.5>"})), by_field);
    let plain = studio.draw(&json!({}));
    assert_eq!(studio.draw(&json!({"negative_prompt": "<lora:kohya:0.5>"})), plain, "in a negative prompt");
    let two = json!({"prompt": "a red heart<lora:kohya:0.5><lora:styles/unet only>"});
    let turned = json!({"prompt": "a red heart<lora:unet only><lora:kohya:0.2><lora:kohya:0.3>"});
    let both = studio.draw(&two);
    assert_ne!(both, by_field);
    assert_eq!(studio.draw(&turned), both, "in another order");
}

#[test]
fn each_part_has_a_scale_of_its_own() {
    let mut studio = Studio::new(1 << 30);
    let [plain, text_encoder, unet, both] = [
        "a red heart",
        "a red heart<lora:kohya:1:0>",
        "a red heart<lora:kohya:0:1>",
        "a red heart<lora:kohya>",
    ]
    .map(|prompt| studio.draw(&json!({"prompt": prompt})));
    assert!(plain != text_encoder && plain != unet && unet != text_encoder && both != unet);
    let unet_only = studio.draw(&json!({"prompt": "a red heart<lora:unet only:1:0>"}));
    assert_eq!(unet_only, plain, "it has nothing for the text encoder");
}

#[test]
fn jobs_with_different_loras_in_one_batch_draw_what_each_draws_alone() {
    let requests = [json!({}), json!({"lora": "kohya"}), json!({"lora": "peft"}), json!({"lora": "kohya"})];
    let mut studio = Studio::new(1 << 30);
    let alone: Vec<_> = requests.iter().map(|request| studio.draw(request)).collect();
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        assert!(furthest(&alone[one], &alone[other]) > 20, "{one} and {other} are alike");
    }
    // One combination fits, and those at work outlive their place.
    for memory in [1 << 30, 30 << 20, 0] {
        let mut studio = Studio::new(memory);
        studio.pipeline = studio.pipeline.with_images_per_call(8);
        let mut begun: Vec<_> = requests.iter().map(|request| studio.begin(request)).collect();
        let mut batch: Vec<_> = begun.iter_mut().collect();
        let together = studio.finish(&mut batch);
        for (picture, alone) in together.iter().zip(&alone) {
            // Kernels sum in another order where a call has more rows.
            let off = furthest(&picture.image.pixels, alone);
            assert!(off <= 2, "with {memory} bytes: {off} of 255");
        }
    }
}

#[test]
fn a_replaced_file_is_read_again() {
    let mut studio = Studio::new(1 << 30);
    let before = studio.draw(&json!({"lora": "kohya"}));
    let other = studio.draw(&json!({"lora": "peft"}));
    copy("peft", &studio.dir.path().join("loras/kohya.safetensors"));
    let after = studio.draw(&json!({"lora": "kohya"}));
    assert!(after == other && after != before);
}

#[test]
fn a_lora_that_cannot_be_used_fails_alone_and_says_why() {
    let mut studio = Studio::new(1 << 30);
    let loras = studio.dir.path().join("loras");
    copy("word.embedding", &loras.join("word.safetensors"));
    fs::write(loras.join("broken.safetensors"), b"nothing").unwrap();
    for (name, sentence) in [
        ("word", "the LoRA word cannot be used: it does not contain a LoRA but tensors such as emb_params"),
        ("broken", "the LoRA broken cannot be used: cannot read broken.safetensors: "),
    ] {
        let input = studio.input(&json!({"lora": name}));
        let error = studio.pipeline.begin(&input, 5).err().unwrap().to_string();
        assert!(error.starts_with(sentence), "{error}");
    }
    let input = studio.input(&json!({"lora": "peft"}));
    fs::remove_file(loras.join("peft.safetensors")).unwrap();
    let error = studio.pipeline.begin(&input, 5).err().unwrap().to_string();
    assert!(error.contains("There is no LoRA peft"), "{error}");
    assert!(!studio.draw(&json!({})).is_empty());
}

#[test]
fn a_learned_word_stands_for_its_vectors() {
    let mut studio = Studio::new(1 << 30);
    let picture = |studio: &mut Studio, prompt: &str| studio.draw(&json!({"prompt": prompt}));
    let word = picture(&mut studio, "a zorblax");
    fs::remove_file(studio.dir.path().join("embeddings/zorblax.safetensors")).unwrap();
    assert_ne!(picture(&mut studio, "a zorblax"), word, "as a word like others");
    copy("word.embedding", &studio.dir.path().join("embeddings/other name.safetensors"));
    assert_eq!(picture(&mut studio, "a Other Name"), word);
    assert_ne!(picture(&mut studio, "a (other name:1.3)"), word, "weighted");
    let negative = studio.draw(&json!({"negative_prompt": "other name"}));
    assert_ne!(negative, studio.draw(&json!({})));
}

#[test]
fn a_textual_inversion_that_cannot_be_read_is_refused_when_it_is_used() {
    let studio = Studio::new(1 << 30);
    fs::write(studio.dir.path().join("embeddings/easynegative.pt"), b"pickle").unwrap();
    let request = |negative: &str| json!({"prompt": "a fox", "negative_prompt": negative});
    let error =
        GenerationInput::parse(&request("easynegative, rain"), &studio.rules).unwrap_err().to_string();
    assert_eq!(
        error,
        "negative_prompt does not meet the constraints. The textual inversion easynegative.pt cannot be used: cannot read \
         easynegative.pt: it has no header; it is neither a safetensors file nor one of torch, or was cut short: fetch it \
         again."
    );
    assert!(GenerationInput::parse(&request("rain"), &studio.rules).is_ok());
}

#[test]
fn a_prompt_with_a_lora_knows_the_words_that_the_lora_brings_along() {
    let mut studio = Studio::new(1 << 30);
    let word = studio.draw(&json!({"prompt": "a zorblax"}));
    let embedding = fs::read(golden("word.embedding")).unwrap();
    let embedding = SafeTensors::deserialize(&embedding).unwrap();
    let vectors = embedding.tensor("emb_params").unwrap();
    let lora = studio.dir.path().join("loras/words.safetensors");
    for name in ["bundle_emb.flurb.string_to_param.*", "bundle_emb.flurb.clip_l"] {
        serialize_to_file([(name, &vectors)], None, &lora).unwrap();
        assert_eq!(studio.draw(&json!({"prompt": "a flurb<lora:words>"})), word, "{name}");
    }
    assert_eq!(studio.draw(&json!({"prompt": "a (Flurb)", "lora": "words"})), {
        studio.draw(&json!({"prompt": "a (zorblax)"}))
    });
    assert_ne!(studio.draw(&json!({"prompt": "a flurb"})), word, "without the LoRA");
    let infotext = infotext(&studio.picture(&json!({"prompt": "a flurb<lora:words>"})));
    assert!(infotext.contains("TI hashes: \"flurb: "), "{infotext}");
}

#[test]
fn block_weights_change_what_is_drawn() {
    let mut studio = Studio::new(1 << 30);
    let mut draw = |tag: &str| studio.draw(&json!({"prompt": format!("a red heart{tag}")}));
    let ones = ["1"; 26].join(",");
    let (plain, whole) = (draw(""), draw("<lora:kohya:0.8>"));
    assert_eq!(draw("<lora:kohya:0.8:lbw=NONE>"), plain);
    assert_eq!(draw(&format!("<lora:kohya:0.8:0.8:{ones}>")), whole);
    let some = draw("<lora:kohya:0.8:lbw=IN02>");
    assert!(some != plain && some != whole);
    let both = draw(
        "<lora:kohya:0.8:lbw=IN02><lora:kohya:0.8:lbw=0,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1>",
    );
    assert_ne!(both, some, "two tags of one LoRA add up");
}

#[test]
fn a_picture_says_what_of_a_lora_was_left_out() {
    let mut studio = Studio::new(1 << 30);
    let kohya = fs::read(golden("kohya")).unwrap();
    let kohya = SafeTensors::deserialize(&kohya).unwrap();
    let renamed =
        kohya.tensors().into_iter().map(|(name, tensor)| (name.replace("_mid_block_", "_nowhere_"), tensor));
    serialize_to_file(renamed, None, &studio.dir.path().join("loras/partial.safetensors")).unwrap();
    let partial = infotext(&studio.picture(&json!({"lora": "partial"})));
    let expected = "Lora skipped: \"partial: 1 of 8 modules \
                    (lora_unet_nowhere_attentions_0_transformer_blocks_0_attn2_to_k)\"";
    assert!(partial.contains(expected), "{partial}");
    let whole = infotext(&studio.picture(&json!({"lora": "kohya"})));
    assert!(!whole.contains("Lora skipped"), "{whole}");
    let warnings = studio.begin(&json!({"lora": "partial"})).warnings().join(" ");
    assert!(
        warnings.starts_with("the LoRA partial is used in part: this model has no place for 1 of 8"),
        "{warnings}"
    );
    assert!(studio.begin(&json!({"lora": "kohya"})).warnings().is_empty());
}

#[test]
fn every_kind_of_lora_changes_the_picture() {
    let mut studio = Studio::new(1 << 30);
    let plain = studio.draw(&json!({}));
    for kind in ["loha", "lokr", "glora", "ia3", "dora", "full", "oft", "boft", "mixed", "numbered"] {
        copy(kind, &studio.dir.path().join(format!("loras/{kind}.safetensors")));
        let drawn = studio.draw(&json!({"prompt": format!("a red heart<lora:{kind}:0.5>")}));
        assert!(furthest(&drawn, &plain) > 2, "{kind}");
    }
}

#[test]
fn a_picture_names_its_add_ons_and_can_be_drawn_again() {
    let mut studio = Studio::new(1 << 30);
    let picture = studio
        .picture(&json!({"prompt": "a zorblax<lora:unet only:0.5>", "lora": "kohya", "lora_scale": 0.7}));
    let infotext = infotext(&picture);
    assert!(infotext.starts_with("a zorblax<lora:unet only:0.5> <lora:kohya:0.7>\n"), "{infotext}");
    assert!(infotext.contains("Lora hashes: \"kohya: ") && infotext.contains(", unet only: "), "{infotext}");
    assert!(infotext.contains("TI hashes: \"zorblax: "), "{infotext}");
    let again: Value = serde_json::from_str(&text(&picture, "stablehand")).unwrap();
    let input = GenerationInput::parse(&again, &studio.rules).unwrap();
    let again = studio.pipeline.draw(&input, input.seed.unwrap()).unwrap();
    assert_eq!(again[0].png, picture.png);
}
