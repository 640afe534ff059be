//! Files of torch that would run code run nothing; converted ones, LoRAs and textual inversions draw what the same weights
//! draw as safetensors.

use std::fs;
use std::path::Path;
use std::time::Duration;

use safetensors::tensor::Dtype;
use serde_json::{Value, json};
use stablehand::diffusion::{AddOnFolders, Conversion, Model};
use stablehand::domain::{GenerationInput, ImageSize};
use stablehand::runtime::{DeviceChoice, Runtime};

use crate::checkpoints::{assert_draws_as_the_built_in, converted, original, refusal, tensors_of};
use crate::formats::{Save, bytes};
use crate::torch_writer::{Around, save, save_old, text, zipped};

#[test]
fn a_converted_checkpoint_draws_the_same() {
    let (folder, half) = (tempfile::tempdir().unwrap(), original());
    let full = converted(&half, Dtype::F32, |value| value.to_f32().to_le_bytes().to_vec());
    let (from, to) = (folder.path().join("fox.ckpt"), folder.path().join("fox.safetensors"));
    for (tensors, is_half) in [(&half, false), (&full, true)] {
        fs::write(&from, bytes(tensors, Around::Checkpoint, save)).unwrap();
        let conversion = Conversion::open(&from, is_half).unwrap();
        assert_eq!(conversion.not_read(), ["global_step", "callbacks"]);
        conversion.write(&mut fs::File::create(&to).unwrap(), |_| Ok(())).unwrap();
        assert_draws_as_the_built_in(&to);
        let size: usize = half.values().map(|tensor| tensor.bytes.len()).sum();
        assert_eq!(conversion.bytes(), size as u64);
    }
}

#[test]
fn a_checkpoint_that_runs_code_is_refused_and_runs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let witness = folder.path().join("it ran");
    let command = format!("touch '{}'", witness.display());
    for (module, name) in
        [("os", "system"), ("posix", "system"), ("builtins", "eval"), ("subprocess", "Popen")]
    {
        let mut pickle = b"\x80\x02}(".to_vec();
        text(&mut pickle, "state_dict");
        pickle.extend(format!("c{module}\n{name}\n").bytes());
        text(&mut pickle, &command);
        pickle.extend(b"\x85Ru.");
        let path = folder.path().join("fox.ckpt");
        fs::write(&path, zipped(&[("fox/data.pkl", &pickle)])).unwrap();
        let sentence = refusal(&path);
        assert!(sentence.contains(&format!("it asks for {module}.{name}, which can run code")), "{sentence}");
        assert!(!witness.exists());
    }
}

/// A small picture with these fields, by the built-in model with the add-ons in `folder`.
fn drawn(folder: &Path, fields: &Value) -> Vec<u8> {
    let add_ons = AddOnFolders {
        loras: folder.join("loras"),
        controlnets: folder.join("controlnets"),
        embeddings: folder.join("embeddings"),
        wildcards: folder.join("wildcards"),
        upscalers: folder.join("upscalers"),
        tiny_vaes: "/nowhere".into(),
        lora_memory: 0,
        look_every: Duration::ZERO,
    };
    let model = Model::open(None, Some(add_ons)).unwrap();
    let mut request = json!({"prompt": "a red heart", "num_inference_steps": 2});
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let mut input = GenerationInput::parse(&request, model.rules()).unwrap();
    input.size = ImageSize { width: 64, height: 64 };
    let mut pipeline = model.load(&Runtime::load(DeviceChoice::Cpu).unwrap()).unwrap();
    pipeline.draw(&input, 5).unwrap().remove(0).image.pixels
}

/// A golden safetensors file as one of torch.
fn as_torch(golden: &str, to: &Path, save: Save) {
    let golden = format!("{}/tests/golden/lora/{golden}.safetensors", env!("CARGO_MANIFEST_DIR"));
    fs::write(to, bytes(&tensors_of(Path::new(&golden)), Around::Nothing, save)).unwrap();
}

#[test]
fn loras_and_textual_inversions_of_torch_draw_as_their_safetensors_do() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lora");
    let folder = tempfile::tempdir().unwrap();
    for name in ["loras", "embeddings"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let place = |name: &str| folder.path().join(name);
    fs::copy(root.join("kohya.safetensors"), place("loras/safe.safetensors")).unwrap();
    fs::copy(root.join("word.embedding.safetensors"), place("embeddings/safe.safetensors")).unwrap();
    as_torch("kohya", &place("loras/new.pt"), save);
    as_torch("kohya", &place("loras/old.ckpt"), save_old);
    as_torch("word.embedding", &place("embeddings/new.bin"), save);
    as_torch("word.embedding", &place("embeddings/old.pt"), save_old);
    let plain = drawn(folder.path(), &json!({}));
    let by_lora = drawn(folder.path(), &json!({"lora": "safe"}));
    assert_ne!(by_lora, plain);
    for name in ["new", "old.ckpt"] {
        assert!(drawn(folder.path(), &json!({"lora": name})) == by_lora, "{name}");
    }
    let by_word = drawn(folder.path(), &json!({"prompt": "a red heart, safe"}));
    for word in ["new", "old"] {
        assert!(
            drawn(folder.path(), &json!({"prompt": format!("a red heart, {word}")})) == by_word,
            "{word}"
        );
    }
}
