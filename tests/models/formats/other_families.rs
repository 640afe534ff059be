//! Files of other families, and other things that are no checkpoints: each is refused by its name.

use super::weights::named;
use super::{Becomes, Row, hold};

const CONV_IN: &str = "model.diffusion_model.input_blocks.0.0.weight";
const CROSS: &str = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight";

#[rustfmt::skip] // a row is a line
pub const ROWS: &[Row] = &[
    Row { what: "Stable Diffusion XL", becomes: Becomes::Refused(&["a Stable Diffusion XL checkpoint"]), made: |bench| bench.checkpoint("other", &named(&[("conditioner.embedders.0.transformer.text_model.final_layer_norm.bias", &[4])])) },
    Row { what: "Stable Diffusion 2, by its text encoder", becomes: Becomes::Refused(&["a Stable Diffusion 2 checkpoint"]), made: |bench| bench.checkpoint("other", &named(&[("cond_stage_model.model.transformer.resblocks.0.ln_1.bias", &[4])])) },
    Row { what: "Stable Diffusion 2, by its width", becomes: Becomes::Refused(&["a Stable Diffusion 2 checkpoint"]), made: |bench| bench.checkpoint("other", &named(&[(CONV_IN, &[320, 4, 3, 3]), (CROSS, &[4, 1024])])) },
    Row { what: "Stable Diffusion 3", becomes: Becomes::Refused(&["a Stable Diffusion 3 checkpoint"]), made: |bench| bench.checkpoint("other", &named(&[("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", &[4])])) },
    Row { what: "FLUX", becomes: Becomes::Refused(&["a FLUX checkpoint"]), made: |bench| bench.checkpoint("other", &named(&[("double_blocks.0.img_attn.qkv.weight", &[4])])) },
    Row { what: "another architecture", becomes: Becomes::Refused(&["no graph for", "[64, 4, 3, 3]"]), made: |bench| bench.checkpoint("other", &named(&[(CONV_IN, &[64, 4, 3, 3]), (CROSS, &[4, 768])])) },
    Row { what: "a ControlNet", becomes: Becomes::Refused(&["a ControlNet"]), made: |bench| bench.checkpoint("other", &named(&[("control_model.zero_convs.0.0.bias", &[4])])) },
    Row { what: "a LoRA with kohya's names", becomes: Becomes::Refused(&["a LoRA", "--lora-dir"]), made: |bench| bench.checkpoint("other", &named(&[("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", &[4, 4])])) },
    Row { what: "a LoRA with PEFT's names", becomes: Becomes::Refused(&["a LoRA", "--lora-dir"]), made: |bench| bench.checkpoint("other", &named(&[("unet.mid_block.attentions.0.proj_in.lora_A.weight", &[4, 4])])) },
    Row { what: "a textual inversion", becomes: Becomes::Refused(&["a textual inversion", "--embeddings-dir"]), made: |bench| bench.checkpoint("other", &named(&[("emb_params", &[1, 768])])) },
    Row { what: "a VAE", becomes: Becomes::Refused(&["a VAE alone"]), made: |bench| bench.checkpoint("other", &named(&[("first_stage_model.decoder.conv_in.weight", &[4])])) },
    Row { what: "nothing known", becomes: Becomes::Refused(&["no checkpoint"]), made: |bench| bench.checkpoint("other", &named(&[("weight", &[4])])) },
];

#[test]
fn other_families_and_other_things() {
    hold(ROWS);
}
