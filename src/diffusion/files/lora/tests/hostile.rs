//! Files that nobody wrote: every kind's tensors with any shapes and any bytes.

use proptest::prelude::*;

use super::*;

/// Any JSON that may stand for a tensor.
fn tensor() -> impl Strategy<Value = Value> {
    let size = prop_oneof![0_u64..9, Just(u64::MAX), Just(1 << 40)];
    let shape = prop::collection::vec(size, 0..5);
    let dtype = prop::sample::select(vec!["F32", "F16", "BF16", "F64", "I64", "BOOL", "?"]);
    let offset = prop_oneof![0_u64..200, Just(u64::MAX), Just(1 << 62)];
    (dtype, shape, offset.clone(), offset).prop_map(
        |(dtype, shape, start, end)| json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]}),
    )
}

/// A tensor whose place in the file is right, so that its shape is looked at.
fn sound_tensor() -> impl Strategy<Value = Vec<usize>> {
    let size = prop::sample::select(vec![0_usize, 1, 2, 3, 4, 6, 8, 9, 28]);
    prop::collection::vec(size, 0..5).prop_filter("small", |shape| shape.iter().product::<usize>() < 3000)
}

/// A shape that no byte of the file belongs to: its type is not read.
fn unread_tensor() -> impl Strategy<Value = (&'static str, Vec<u64>)> {
    let size = prop::sample::select(vec![0_u64, 1, 2, 8, 700, 3000, 1 << 31, 1 << 50, 1 << 62]);
    (prop::sample::select(vec!["F4", "F8_E8M0", "?"]), prop::collection::vec(size, 0..4))
}

const MODULE: &str = "(lora_unet_|unet\\.|lora_te_|base_model\\.model\\.|)(conv_in|norm|mid\\.attn2\\.to_k|text_model\\.q_proj|x)";
const END: &str = "(lora_down\\.weight|lora_up\\.weight|lora_mid\\.weight|lora_B\\.bias|lora_embedding_[AB]|alpha|scale|scalar\
|dora_scale|lora_magnitude_vector|lora_A\\.weight|hada_w[12]_[ab]|hada_t[12]|lokr_w[12]|lokr_w[12]_[ab]|lokr_t2|[ab][12]\\.weight\
|bm\\.weight|weight|on_input|ia3_l|diff|diff_b|w_norm|b_norm|oft_blocks|oft_diag|rescale|oft_R\\.weight|boft_R|boft_s|é)";
const NUMBERED: &str = "(unet|text_encoder|vae):[0-9]{1,20}:(up|down|x)";
const WORD: &str = "bundle_emb\\.[a-z]{0,2}\\.(clip_l|string_to_param\\.\\*|x)";

fn name() -> impl Strategy<Value = String> {
    let named = (MODULE, END).prop_map(|(module, end)| format!("{module}.{end}"));
    prop_oneof![8 => named, 1 => NUMBERED, 1 => WORD]
}

fn merge_all(path: &Path) {
    let Ok(lora) = LoraFile::open("fox", path, &small()) else { return };
    let _ = (lora.skipped(), lora.short_hash());
    for name in lora.file.tensor_names() {
        let _ = lora.file.values(&name);
    }
    let mut weights = Weights::of(
        [
            ("conv_in.weight", 72),
            ("conv_in.bias", 4),
            ("norm.weight", 4),
            ("norm.bias", 4),
            ("mid.attn2.to_k.weight", 32),
            ("text_model.q_proj.weight", 64),
        ],
        0.5,
    );
    for part in ModelPart::ADAPTABLE {
        let _ = lora.merge(part, 0.7, &mut weights);
    }
    for (parameter, values) in weights.0 {
        assert!(values.iter().all(|value| value.is_finite()), "{parameter}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn hostile_files_are_refused_and_never_panic(
        tensors in prop::collection::vec((name(), tensor()), 0..6),
        metadata in prop::option::of("\\{.{0,20}|[a-z]{0,9}"),
        data in prop::collection::vec(any::<u8>(), 0..300),
        cut in 0_usize..400,
    ) {
        let mut header: Map<String, Value> = tensors.into_iter().collect();
        if let Some(metadata) = metadata {
            header.insert("__metadata__".to_owned(), json!({"lora_adapter_metadata": metadata}));
        }
        let file = written(&Value::Object(header).to_string(), &data);
        for cut in [usize::MAX, cut] {
            let mut bytes = fs::read(file.path()).unwrap();
            bytes.truncate(cut);
            fs::write(file.path(), bytes).unwrap();
            merge_all(file.path());
        }
    }

    #[test]
    fn tensors_of_unread_types_take_no_memory_and_never_panic(
        module in MODULE,
        tensors in prop::collection::btree_map(END, sound_tensor(), 1..4),
        unread in prop::collection::btree_map(END, unread_tensor(), 1..3),
    ) {
        let (mut header, mut end) = (Map::new(), 0);
        for (name, shape) in tensors {
            let next = end + 4 * shape.iter().product::<usize>();
            let place = json!({"dtype": "F32", "shape": shape, "data_offsets": [end, next]});
            header.insert(format!("{module}.{name}"), place);
            end = next;
        }
        let data = 1.0_f32.to_le_bytes().repeat(end / 4);
        for (name, (dtype, shape)) in unread {
            if header.get(&format!("{module}.{name}")).is_none() {
                let place = json!({"dtype": dtype, "shape": shape, "data_offsets": [end, end]});
                header.insert(format!("{module}.{name}"), place);
            }
        }
        merge_all(written(&Value::Object(header).to_string(), &data).path());
    }

    #[test]
    fn sound_files_of_nonsense_are_merged_or_refused_and_never_panic(
        module in MODULE,
        tensors in prop::collection::btree_map(END, sound_tensor(), 1..5),
        bits in any::<u32>(),
    ) {
        let names: Vec<_> = tensors.keys().map(|end| format!("{module}.{end}")).collect();
        let tensors: Vec<_> =
            names.iter().zip(tensors.values()).map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
        let file = file_of(&tensors, &Value::Null);
        // Any number in the place of the ones.
        let one = 1.0_f32.to_le_bytes();
        let mut bytes = fs::read(file.path()).unwrap();
        for four in bytes.chunks_exact_mut(4).filter(|four| *four == one) {
            four.copy_from_slice(&bits.to_le_bytes());
        }
        for bytes in [fs::read(file.path()).unwrap(), bytes] {
            fs::write(file.path(), bytes).unwrap();
            merge_all(file.path());
        }
    }
}

/// Errors that name a tensor quote it: its name may steer a terminal, or fill the log.
#[test]
fn numbers_of_unread_types_are_refused_and_names_are_quoted() {
    let long = format!("lora_unet_mid_attn2_to_k\u{1b}[2J{}", "x".repeat(10_000));
    for (name, shape, part) in [
        ("lora_unet_mid_attn2_to_k.alpha", "[1125899906842624]", "too large"),
        ("lora_unet_mid_attn2_to_k.alpha", "[4611686018427387904]", "too large"),
        ("lora_unet_mid_attn2_to_k.alpha", "[64]", "is not a single number"),
        ("lora_unet_mid_attn2_to_k.alpha", "[1]", "its type is F4"),
        (long.as_str(), "[1125899906842624]", "\\u{1b}[2J"),
    ] {
        let header = format!(
            r#"{{"lora_unet_mid_attn2_to_k.lora_down.weight":{{"dtype":"F32","shape":[1,8],"data_offsets":[0,32]}},
            "lora_unet_mid_attn2_to_k.lora_up.weight":{{"dtype":"F32","shape":[4,1],"data_offsets":[32,48]}},
            {}:{{"dtype":"F4","shape":{shape},"data_offsets":[48,48]}}}}"#,
            json!(name)
        );
        let file = written(&header, &[0; 48]);
        let mut weights = Weights::of([("mid.attn2.to_k.weight", 32)], 0.5);
        let error = LoraFile::open("fox", file.path(), &small())
            .and_then(|lora| lora.merge(ModelPart::UNet, 1.0, &mut weights))
            .unwrap_err()
            .to_string();
        assert!(error.contains(part) && error.len() < 500 && !error.contains('\u{1b}'), "{error}");
    }
}

#[test]
fn an_adapter_of_peft_without_its_configuration_says_so() {
    let file = file_of(
        &[("unet.mid.attn2.to_k.lora_A.weight", &[1, 8]), ("unet.mid.attn2.to_k.lora_B.weight", &[4, 1])],
        &Value::Null,
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapter_model.safetensors");
    fs::copy(file.path(), &path).unwrap();
    let opened = || LoraFile::open("fox", &path, &small());
    let skipped = opened().unwrap().skipped().unwrap();
    assert!(skipped.contains("its alpha (there is no adapter_config.json beside it"), "{skipped}");
    fs::write(folder.path().join("adapter_config.json"), "{\"lora_alpha\": 1}").unwrap();
    assert_eq!(opened().unwrap().skipped(), None);
    fs::write(folder.path().join("adapter_config.json"), "").unwrap();
    assert!(opened().is_err());
}
