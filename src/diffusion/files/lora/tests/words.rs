//! Words for prompts inside LoRAs.

use super::*;

const PAIR: [(&str, &[usize]); 2] = [
    ("lora_unet_mid_attn2_to_k.lora_down.weight", &[2, 8]),
    ("lora_unet_mid_attn2_to_k.lora_up.weight", &[4, 2]),
];

fn open(tensors: &[(&str, &[usize])], metadata: &Value) -> Result<LoraFile, LoraError> {
    LoraFile::open("fox", file_of(tensors, metadata).path(), &small())
}

#[test]
fn bundled_words_are_read_in_the_formats_of_a1111_and_of_the_first_trainer() {
    let words: [(&str, &[usize]); 4] = [
        ("bundle_emb.zorb.string_to_param.*", &[3, 8]),
        ("bundle_emb.cafe\u{301}.clip_l", &[1, 8]),
        ("bundle_emb.wide.clip_l", &[1, 9]),
        ("<s1>", &[8]),
    ];
    let lora = open(&[&PAIR[..], &words].concat(), &json!({"<s1>": "<embed>"})).unwrap();
    let words = lora.words("0123");
    assert!(words.iter().all(|word| word.hash == "0123"));
    let found: Vec<_> = words
        .iter()
        .map(|word| (word.names[0].as_str(), word.vectors.as_ref().map(ndarray::ArrayBase::nrows)))
        .collect();
    let wide = "The word wide of the LoRA fox cannot be used: its vectors are 9 wide; this model's are 8."
        .to_owned();
    let mut expected = vec![("zorb", Ok(3)), ("caf\u{e9}", Ok(1)), ("wide", Err(&wide)), ("<s1>", Ok(1))];
    expected.sort_by_key(|(word, _)| *word);
    let mut found = found;
    found.sort_by_key(|(word, _)| *word);
    assert_eq!(found, expected);
    assert_eq!(lora.skipped(), None);
}

#[test]
fn a_file_with_words_alone_is_a_lora_too() {
    let lora = open(&[("bundle_emb.zorb.emb_params", &[1, 8])], &Value::Null).unwrap();
    assert_eq!(lora.words("").len(), 1);
    assert!(ModelPart::ADAPTABLE.iter().all(|part| !lora.touches(*part, &scales(1.0))));
}
