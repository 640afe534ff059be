//! A text encoder's configuration counts: how many layers are used, and which tokens were added.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use stablehand::diffusion::Model;
use stablehand::domain::GenerationInput;
use tempfile::TempDir;

use crate::check::{check, one_line};
use crate::checkpoints::{
    FILES, assert_draws_as_the_built_in, component, diffusers_folder, model, pipeline, refusal, write,
};
use crate::drawing::heart;
use stablehand::domain::SchedulerKind;

fn with_layers(layers: u32) -> TempDir {
    let folder = diffusers_folder();
    let path = folder.path().join("text_encoder/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["num_hidden_layers"] = layers.into();
    fs::write(path, config.to_string()).unwrap();
    folder
}

fn drawn(path: &Path, prompt: &str, clip_skip: u32) -> Vec<u8> {
    let input = GenerationInput { prompt: prompt.to_owned(), clip_skip, ..heart(SchedulerKind::EulerD) };
    pipeline(path).unwrap().draw(&input, 7).unwrap().remove(0).image.pixels
}

#[test]
fn fewer_layers_are_used_where_the_configuration_says_so_as_in_transformers() {
    // A golden of the reference covers clip_skip: the layer before the last, through the final norm. So does this.
    let prompt = "a red heart";
    let (second, first) = (drawn(&model(), prompt, 2), drawn(&model(), prompt, 3));
    let folder = with_layers(2);
    assert!(drawn(folder.path(), prompt, 1) == second);
    assert!(drawn(folder.path(), prompt, 2) == first);
    assert_eq!(Model::open(Some(folder.path()), None).unwrap().rules().max_clip_skip, 2);

    // The weights of the third layer need not be there.
    let mut weights = component("text_encoder", FILES[0].1);
    weights.retain(|name, _| !name.contains(".layers.2."));
    write(&weights, &folder.path().join("text_encoder").join(FILES[0].1));
    assert!(drawn(folder.path(), prompt, 1) == second);
    let (code, stdout, _) = check(folder.path());
    assert!(code == Some(0) && one_line(&stdout).contains("text encoder 2 layers"), "{stdout}");

    let whole = with_layers(3);
    assert_draws_as_the_built_in(whole.path());
    write(&weights, &whole.path().join("text_encoder").join(FILES[0].1));
    assert!(refusal(whole.path()).contains("layers.2."));
}

#[test]
fn layers_that_are_not_used_are_said() {
    let (code, stdout, _) = check(with_layers(2).path());
    assert_eq!(code, Some(0), "{stdout}");
    assert!(one_line(&stdout).contains("(layers beyond num_hidden_layers)"), "{stdout}");
}

/// The built-in model with rows for new tokens behind its table: those of "heart" and "blue" again.
fn with_rows() -> TempDir {
    let folder = diffusers_folder();
    let mut weights = component("text_encoder", FILES[0].1);
    let name = weights.keys().find(|name| name.ends_with("token_embedding.weight")).unwrap().clone();
    let table = weights.get_mut(&name).unwrap();
    let vocab: Value =
        serde_json::from_slice(&fs::read(folder.path().join("tokenizer/vocab.json")).unwrap()).unwrap();
    let bytes_in_a_row = table.shape[1] * 2;
    for word in ["heart</w>", "blue</w>"] {
        let row = usize::try_from(vocab[word].as_u64().unwrap()).unwrap();
        let row = table.bytes[row * bytes_in_a_row..][..bytes_in_a_row].to_vec();
        table.bytes.extend(row);
        table.shape[0] += 1;
    }
    write(&weights, &folder.path().join("text_encoder").join(FILES[0].1));
    folder
}

#[test]
fn added_tokens_have_embeddings_behind_the_vocabulary() {
    let expected = drawn(&model(), "a red heart on a blue background", 1);
    let prompt = "a red <my-thing> on a <my-colour> background";
    let decoder =
        |content: &str| json!({"content": content, "lstrip": false, "rstrip": false, "normalized": true});
    let tokenizers = [
        ("added_tokens.json", json!({"<my-colour>": 1808, "<my-thing>": 1807})),
        (
            "tokenizer_config.json",
            json!({"model_max_length": 77, "pad_token": "<|endoftext|>",
                "added_tokens_decoder": {"1807": decoder("<my-thing>"), "1808": decoder("<my-colour>")}}),
        ),
        (
            "special_tokens_map.json",
            json!({"pad_token": "<|endoftext|>", "additional_special_tokens": ["<my-thing>", "<my-colour>"]}),
        ),
    ];
    for (file, content) in tokenizers {
        let folder = with_rows();
        fs::write(folder.path().join("tokenizer").join(file), content.to_string()).unwrap();
        assert!(drawn(folder.path(), prompt, 1) == expected, "{file}");
    }
    // Rows without tokens change nothing.
    assert_draws_as_the_built_in(with_rows().path());
}

#[test]
fn added_tokens_without_embeddings_are_read_as_text_and_said() {
    let folder = diffusers_folder();
    fs::write(folder.path().join("tokenizer/added_tokens.json"), r#"{"<my-thing>": 1807}"#).unwrap();
    let prompt = "a red <my-thing>";
    assert!(drawn(folder.path(), prompt, 1) == drawn(&model(), prompt, 1));
    let (code, stdout, _) = check(folder.path());
    assert!(code == Some(0) && one_line(&stdout).contains("added tokens <my-thing>"), "{stdout}");
}
