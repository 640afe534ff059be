//! Every kind against the package that trains it.

use super::*;

/// Of every merged parameter the goldens keep one value of so many.
const STRIDE: usize = 13;
/// The same of the numbered files, which change many.
const LONG_STRIDE: usize = 997;

fn tiny_sd(part: ModelPart) -> TensorFile {
    let file = match part {
        ModelPart::UNet => "unet/diffusion_pytorch_model.fp16.safetensors",
        _ => "text_encoder/model.fp16.safetensors",
    };
    TensorFile::open(Path::new(&format!("{ROOT}/models/tiny-sd/{file}"))).unwrap()
}

fn names() -> ModuleNames {
    let parameters = ModelPart::ADAPTABLE.into_iter().flat_map(|part| {
        let file = tiny_sd(part);
        let targets: Vec<_> = file
            .tensor_names()
            .into_iter()
            .map(|name| Target { part, shape: file.shape(&name).unwrap().to_vec(), parameter: name })
            .collect();
        targets
    });
    ModuleNames::new(parameters)
}

fn golden(name: &str) -> PathBuf {
    format!("{ROOT}/tests/golden/lora/{name}.safetensors").into()
}

fn open(name: &str) -> LoraFile {
    LoraFile::open(name, &golden(name), &names()).unwrap()
}

/// The model's own values of the parameters that the golden has, or of all.
fn originals(part: ModelPart, only: Option<&TensorFile>) -> Weights {
    let base = tiny_sd(part);
    let wanted =
        base.tensor_names().into_iter().filter(|name| only.is_none_or(|only| only.shape(name).is_some()));
    Weights(wanted.map(|name| (name.clone(), base.values(&name).unwrap())).collect())
}

fn furthest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn merged_weights_equal_those_of_the_package_that_trains_the_kind() {
    let names = names();
    for (name, scale, stride, limit) in [
        ("kohya", 0.8, STRIDE, 1e-6),
        ("original_half", 1.0, STRIDE, 1e-6),
        ("cp", 1.0, STRIDE, 1e-6),
        ("peft", 1.0, STRIDE, 1e-6),
        ("old_diffusers", 1.0, STRIDE, 1e-6),
        ("loha", 0.7, STRIDE, 1e-5),
        ("lokr", 0.7, STRIDE, 1e-5),
        ("glora", 0.7, STRIDE, 1e-5),
        ("ia3", 0.7, STRIDE, 1e-6),
        ("dora", 0.7, STRIDE, 1e-5),
        ("full", 0.7, STRIDE, 1e-6),
        ("oft", 0.7, STRIDE, 1e-5),
        ("oft_diag", 0.5, STRIDE, 1e-5),
        ("boft", 0.7, STRIDE, 1e-5),
        ("mixed", 1.0, STRIDE, 1e-5),
        ("peft_loha/adapter_model", 1.0, STRIDE, 1e-5),
        ("peft_lokr/adapter_model", 1.0, STRIDE, 1e-5),
        ("peft_dora/adapter_model", 1.0, STRIDE, 1e-5),
        ("peft_bias/adapter_model", 1.0, STRIDE, 1e-6),
        ("peft_ia3/adapter_model", 1.0, STRIDE, 1e-6),
        ("peft_oft/adapter_model", 1.0, STRIDE, 1e-5),
        ("peft_oft_exact/adapter_model", 1.0, STRIDE, 1e-5),
        ("peft_boft/adapter_model", 1.0, STRIDE, 1e-5),
        ("peft_boft_stages/adapter_model", 1.0, STRIDE, 1e-5),
        ("numbered", 1.0, LONG_STRIDE, 1e-6),
        ("numbered_resnets", 1.0, LONG_STRIDE, 1e-6),
    ] {
        let lora = LoraFile::open(name, &golden(name), &names).unwrap();
        assert_eq!(lora.skipped(), None, "{name}");
        let expected = TensorFile::open(&golden(&format!("{name}.merged"))).unwrap();
        let mut compared = 0;
        for part in ModelPart::ADAPTABLE {
            let mut weights = originals(part, Some(&expected));
            assert_eq!(lora.touches(part, &scales(scale)), !weights.0.is_empty(), "{name}");
            // A LoRA that changed more would find no parameter to change.
            lora.merge(part, scale, &mut weights).unwrap();
            for (parameter, values) in weights.0 {
                let expected = expected.values(&parameter).unwrap();
                let kept: Vec<f32> = values.into_iter().step_by(stride).collect();
                let apart = furthest(&kept, &expected);
                assert!(apart <= limit, "{name}: {parameter} is {apart} off");
                compared += 1;
            }
        }
        assert_eq!(compared, expected.tensor_names().len(), "{name}");
    }
}

/// A weight that all five LoRAs of the next test change.
const SHARED: &str = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight";

#[test]
fn loras_on_the_same_modules_add_up_in_any_order() {
    let loras = ["mixed", "oft", "ia3", "dora", "kohya"].map(open);
    let scale = scales(0.6);
    let all = |order: [usize; 5]| {
        let mut weights = originals(ModelPart::UNet, None);
        let loras: Vec<_> = order.iter().map(|index| (&loras[*index], &scale)).collect();
        merge_loras(&loras, ModelPart::UNet, &mut weights).unwrap();
        weights
    };
    let (one, other) = (all([0, 1, 2, 3, 4]), all([4, 2, 0, 3, 1]));
    let own = originals(ModelPart::UNet, None);
    for (parameter, values) in &one.0 {
        assert!(furthest(values, &other.0[parameter]) < 1e-6, "{parameter}");
    }
    let changed = one.0.iter().filter(|(name, values)| furthest(values, &own.0[*name]) > 1e-4).count();
    assert!(changed > 8, "{changed} parameters changed");
    // Each adds what it adds alone, whatever the others do.
    let mut sum = own.0[SHARED].clone();
    for lora in &loras {
        let mut alone = originals(ModelPart::UNet, None);
        merge_loras(&[(lora, &scale)], ModelPart::UNet, &mut alone).unwrap();
        let added = alone.0[SHARED].iter().zip(&own.0[SHARED]).map(|(after, before)| after - before);
        sum.iter_mut().zip(added).for_each(|(sum, added)| *sum += added);
    }
    assert!(furthest(&one.0[SHARED], &sum) < 1e-5 && furthest(&sum, &own.0[SHARED]) > 0.01);
}

#[test]
fn block_weights_choose_the_modules_that_change() {
    let lora = open("kohya");
    let changed = |part: ModelPart, blocks: &str| {
        let mut weights = originals(part, None);
        merge_loras(&[(&lora, &scales_in(1.0, Some(blocks)))], part, &mut weights).unwrap();
        let own = originals(part, None);
        let mut names: Vec<_> = weights
            .0
            .into_iter()
            .filter(|(name, values)| *values != own.0[name])
            .map(|(name, _)| name)
            .collect();
        names.sort();
        names
    };
    // Its modules of the first block are IN01; its strided convolution is IN02.
    assert_eq!(changed(ModelPart::UNet, "IN02"), ["down_blocks.0.downsamplers.0.conv.weight"]);
    assert_eq!(
        changed(ModelPart::UNet, "IN01"),
        [
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight",
            "down_blocks.0.resnets.0.conv1.weight"
        ]
    );
    assert_eq!(
        changed(ModelPart::UNet, "M00"),
        ["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"]
    );
    assert_eq!(changed(ModelPart::TextEncoder, "M00").len(), 2, "with the text encoder");
    assert!(changed(ModelPart::TextEncoder, "NONE").is_empty());
    assert!(!lora.touches(ModelPart::TextEncoder, &scales_in(1.0, Some("NONE"))));
}

#[test]
fn the_older_names_of_glora_mean_the_same_matrices() {
    let bytes = fs::read(golden("glora")).unwrap();
    let mut text = String::new();
    let header = 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    for (index, part) in std::str::from_utf8(&bytes[8..header]).unwrap().split(".weight").enumerate() {
        let (start, end) = part.split_at(part.len() - 1);
        let swapped = if end == "1" { "2" } else { "1" };
        text += if index > 0 { ".weight" } else { "" };
        // The last piece is behind the last name.
        text += start;
        text += if part.ends_with(['1', '2']) { swapped } else { end };
    }
    let older = tempfile::NamedTempFile::new().unwrap();
    fs::write(older.path(), [&bytes[..8], text.as_bytes(), &bytes[header..]].concat()).unwrap();
    let older = LoraFile::open("older", older.path(), &names()).unwrap();
    for part in ModelPart::ADAPTABLE {
        let (mut new, mut old) = (originals(part, None), originals(part, None));
        open("glora").merge(part, 0.7, &mut new).unwrap();
        older.merge(part, 0.7, &mut old).unwrap();
        assert!(new.0 == old.0 && new.0 != originals(part, None).0, "{part}");
    }
}

#[test]
fn a_lora_of_an_embedding_table_is_the_transposed_product() {
    let table = ModuleNames::new([Target {
        part: ModelPart::TextEncoder,
        parameter: "text_model.token_embedding.weight".to_owned(),
        shape: vec![3, 2],
    }]);
    let tensors: [(&str, &[usize]); 2] = [
        ("base_model.model.text_model.token_embedding.lora_embedding_A", &[1, 3]),
        ("base_model.model.text_model.token_embedding.lora_embedding_B", &[2, 1]),
    ];
    let file = file_of(&tensors, &Value::Null);
    let mut bytes = fs::read(file.path()).unwrap();
    let start = bytes.len() - 20;
    for (four, value) in bytes[start..].chunks_exact_mut(4).zip([1.0_f32, 2.0, 3.0, 10.0, 20.0]) {
        four.copy_from_slice(&value.to_le_bytes());
    }
    fs::write(file.path(), bytes).unwrap();
    let lora = LoraFile::open("fox", file.path(), &table).unwrap();
    let mut weights = Weights::of([("text_model.token_embedding.weight", 6)], 0.0);
    lora.merge(ModelPart::TextEncoder, 1.0, &mut weights).unwrap();
    assert_eq!(weights.0["text_model.token_embedding.weight"], [10.0, 20.0, 20.0, 40.0, 30.0, 60.0]);
}

#[test]
fn an_ia3_of_peft_that_could_be_for_either_side_needs_its_configuration() {
    let square = ModuleNames::new([Target {
        part: ModelPart::UNet,
        parameter: "conv.weight".to_owned(),
        shape: vec![4, 4, 3, 3],
    }]);
    let file = file_of(&[("base_model.model.conv.ia3_l", &[1, 4, 1, 1])], &Value::Null);
    let sentence = LoraFile::open("fox", file.path(), &square).err().unwrap().to_string();
    assert!(sentence.ends_with("conv.weight: put its adapter_config.json beside it"), "{sentence}");
}

#[test]
fn a_lora_for_latents_alone_fits_the_first_convolution_of_an_inpainting_model() {
    let inpainting = ModuleNames::new([Target {
        part: ModelPart::UNet,
        parameter: "conv_in.weight".to_owned(),
        shape: vec![2, 9, 1, 2],
    }]);
    let tensors: [(&str, &[usize]); 2] = [
        ("lora_unet_conv_in.lora_down.weight", &[3, 4, 1, 2]),
        ("lora_unet_conv_in.lora_up.weight", &[2, 3]),
    ];
    let lora = LoraFile::open("fox", file_of(&tensors, &Value::Null).path(), &inpainting).unwrap();
    let mut weights = Weights::of([("conv_in.weight", 36)], 0.5);
    lora.merge(ModelPart::UNet, 1.0, &mut weights).unwrap();
    let row = [vec![3.5; 8], vec![0.5; 10]].concat();
    assert_eq!(weights.0["conv_in.weight"], [row.clone(), row].concat());
    let wrong: [(&str, &[usize]); 2] = [
        ("lora_unet_conv_in.lora_down.weight", &[3, 5, 1, 2]),
        ("lora_unet_conv_in.lora_up.weight", &[2, 3]),
    ];
    let sentence = LoraFile::open("fox", file_of(&wrong, &Value::Null).path(), &inpainting).err().unwrap();
    assert!(sentence.to_string().ends_with("conv_in.weight needs [3, 9, 1, 2]"), "{sentence}");
}
