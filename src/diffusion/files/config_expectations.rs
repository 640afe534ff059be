//! What our graphs compute, as configuration files say it. A file that asks for something else is refused by the key: the
//! picture would be another than the model's.
//!
//! A graph that comes with a model, or an export of its own, computes whatever it computes, so only the kinds of layers
//! are compared there.

use serde_json::{Value, json};

use super::ModelConfigs;
use super::config_file::{ConfigFile, quote};
use super::embedded::SD_V1;

/// Kinds of layers that all our UNets have. Null stands for false and for nothing, as in diffusers.
/// (`models/graphs/config.py` has the same list.)
const UNET: [(&str, &str); 28] = [
    ("act_fn", "\"silu\""),
    ("addition_embed_type", "null"),
    ("attention_type", "\"default\""),
    ("center_input_sample", "false"),
    ("class_embed_type", "null"),
    ("conv_in_kernel", "3"),
    ("conv_out_kernel", "3"),
    ("cross_attention_norm", "null"),
    ("downsample_padding", "1"),
    ("dual_cross_attention", "false"),
    ("encoder_hid_dim", "null"),
    ("encoder_hid_dim_type", "null"),
    ("mid_block_only_cross_attention", "null"),
    ("mid_block_scale_factor", "1"),
    ("mid_block_type", "\"UNetMidBlock2DCrossAttn\""),
    ("num_attention_heads", "null"),
    ("num_class_embeds", "null"),
    ("only_cross_attention", "false"),
    ("resnet_out_scale_factor", "1"),
    ("resnet_skip_time_act", "false"),
    ("resnet_time_scale_shift", "\"default\""),
    ("reverse_transformer_layers_per_block", "null"),
    ("time_embedding_act_fn", "null"),
    ("time_embedding_dim", "null"),
    ("time_embedding_type", "\"positional\""),
    ("timestep_post_act", "null"),
    ("transformer_layers_per_block", "1"),
    ("class_embeddings_concat", "false"),
];
const VAE: [(&str, &str); 6] = [
    ("_class_name", "\"AutoencoderKL\""),
    ("act_fn", "\"silu\""),
    ("latents_mean", "null"),
    ("latents_std", "null"),
    ("use_quant_conv", "true"),
    ("use_post_quant_conv", "true"),
];
const TEXT_ENCODER: [(&str, &str); 1] = [("hidden_act", "\"quick_gelu\"")];

/// Keys whose values are read elsewhere, or that say nothing about the layers.
const ELSEWHERE: [&str; 9] = [
    "sample_size",
    "scaling_factor",
    "num_hidden_layers",
    "vocab_size",
    "in_channels",
    "time_cond_proj_dim",
    "projection_dim",
    "use_linear_projection",
    "upcast_attention",
];

/// Which of a model's parts have a graph of ours, and whether it is Stable Diffusion v1's inside the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraphOf {
    /// The part has its own graph with its weights in it.
    Export,
    /// A graph without weights that comes with the model.
    Model,
    StableDiffusionV1,
}

/// Fails with a sentence about the first key that asks for something else than the graphs compute.
pub fn check(
    configs: &ModelConfigs,
    unet: GraphOf,
    vae: GraphOf,
    text_encoder: GraphOf,
) -> Result<(), String> {
    let unet_file = configs.unet.as_ref().map(|unet| &unet.file);
    let files = [
        (unet_file, unet, "unet/config.json", UNET.as_slice()),
        (configs.vae.file.as_ref(), vae, "vae/config.json", &VAE),
        (configs.text_encoder.file.as_ref(), text_encoder, "text_encoder/config.json", &TEXT_ENCODER),
    ];
    for (file, graph, own, kinds) in files {
        let Some(file) = file.filter(|_| graph != GraphOf::Export) else { continue };
        for (key, expected) in kinds {
            compare(file, key, &serde_json::from_str(expected).unwrap_or_default())?;
        }
        if graph == GraphOf::StableDiffusionV1 {
            let ours =
                SD_V1.get(own).and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or(json!({}));
            let sizes = ours.as_object().into_iter().flatten();
            let sizes = sizes.filter(|(key, _)| is_size(key) && !kinds.iter().any(|(kind, _)| kind == key));
            for (key, expected) in sizes {
                compare(file, key, expected)?;
            }
        }
    }
    Ok(())
}

/// Whether a key says how large something is, or how it is put together.
fn is_size(key: &str) -> bool {
    let ids = ["bos_token_id", "eos_token_id", "pad_token_id"];
    let training =
        ["dropout", "attention_dropout", "initializer_factor", "initializer_range", "force_upcast"];
    let about = ["architectures", "model_type", "torch_dtype", "dtype", "transformers_version"];
    !key.starts_with('_')
        && ![ELSEWHERE.as_slice(), &ids, &training, &about].iter().any(|keys| keys.contains(&key))
}

fn compare(file: &ConfigFile, key: &str, expected: &Value) -> Result<(), String> {
    // A key that is missing has diffusers' default, with which the weights would not fit if it were another.
    let Some(given) = file.get(key).filter(|given| !same(given, expected)) else { return Ok(()) };
    let ours = match expected {
        Value::Null => "no such thing".to_owned(),
        expected => quote(expected),
    };
    Err(format!(
        "its {} says that {key} is {}, but stablehand's graphs have {ours}",
        file.name(),
        quote(given)
    ))
}

/// Whether two values mean the same: null and false do, a number with and without a point, and a number for all levels
/// with a list that repeats it.
fn same(given: &Value, expected: &Value) -> bool {
    let nothing = |value: &Value| matches!(value, Value::Null | Value::Bool(false));
    match (given, expected) {
        (given, expected) if nothing(given) && nothing(expected) => true,
        (Value::Array(given), Value::Array(expected)) => {
            given.len() == expected.len()
                && given.iter().zip(expected).all(|(given, expected)| same(given, expected))
        }
        (Value::Array(given), expected) => {
            !given.is_empty() && given.iter().all(|given| same(given, expected))
        }
        (Value::Number(given), Value::Number(expected)) => given.as_f64() == expected.as_f64(),
        (given, expected) => given == expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::files::ModelPlace;

    fn checked(file: &str, json: &str, graph: GraphOf) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file);
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(path, json).unwrap();
        let configs = ModelConfigs::read(&ModelPlace::Folder(folder.path().to_owned())).unwrap();
        check(&configs, graph, graph, graph)
    }

    #[test]
    fn stable_diffusion_v1_s_own_files_are_as_expected() {
        for file in ["unet/config.json", "vae/config.json", "text_encoder/config.json"] {
            let text = std::str::from_utf8(SD_V1.get(file).unwrap()).unwrap();
            assert_eq!(checked(file, text, GraphOf::StableDiffusionV1), Ok(()), "{file}");
        }
    }

    #[test]
    fn what_the_graphs_do_not_compute_is_refused_by_its_key() {
        for (file, json, part) in [
            ("unet/config.json", r#"{"class_embed_type": "timestep"}"#, "class_embed_type is \"timestep\""),
            ("unet/config.json", r#"{"encoder_hid_dim": 1024}"#, "encoder_hid_dim is 1024"),
            ("unet/config.json", r#"{"mid_block_type": "UNetMidBlock2D"}"#, "mid_block_type"),
            (
                "unet/config.json",
                r#"{"act_fn": "gelu"}"#,
                "act_fn is \"gelu\", but stablehand's graphs have \"silu\"",
            ),
            ("text_encoder/config.json", r#"{"hidden_act": "gelu"}"#, "hidden_act is \"gelu\""),
            ("vae/config.json", r#"{"_class_name": "AutoencoderTiny"}"#, "AutoencoderTiny"),
        ] {
            for graph in [GraphOf::StableDiffusionV1, GraphOf::Model] {
                let sentence = checked(file, json, graph).unwrap_err();
                assert!(sentence.contains(part) && sentence.contains(file), "{sentence}");
            }
            assert_eq!(checked(file, json, GraphOf::Export), Ok(()));
        }
        let other_heads = r#"{"attention_head_dim": [5, 10, 20, 20]}"#;
        assert!(
            checked("unet/config.json", other_heads, GraphOf::StableDiffusionV1)
                .unwrap_err()
                .contains("attention_head_dim")
        );
        assert_eq!(checked("unet/config.json", other_heads, GraphOf::Model), Ok(()));
    }

    #[test]
    fn other_words_for_the_same_are_no_difference() {
        for json in [
            r#"{"attention_head_dim": [8, 8, 8, 8], "norm_num_groups": 32.0, "class_embed_type": false}"#,
            r#"{"cross_attention_dim": [768, 768, 768, 768], "only_cross_attention": [false, false, false, false]}"#,
            r#"{"mid_block_scale_factor": 1.0, "unknown": "key", "use_linear_projection": true, "act_fn": null}"#,
        ] {
            assert_eq!(checked("unet/config.json", json, GraphOf::StableDiffusionV1), Ok(()), "{json}");
        }
    }
}
