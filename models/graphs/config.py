"""Reads the config.json files of a Stable Diffusion v1 model."""
import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
SD_V1 = HERE / "sd-v1"

# Settings that the graphs assume. A config with other values belongs to another model family.
UNET_ASSUMES = {
    "act_fn": "silu", "addition_embed_type": None, "center_input_sample": False, "class_embed_type": None, "conv_in_kernel": 3,
    "conv_out_kernel": 3, "cross_attention_norm": None, "downsample_padding": 1, "dual_cross_attention": False,
    "encoder_hid_dim": None, "encoder_hid_dim_type": None, "mid_block_only_cross_attention": None, "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn", "num_attention_heads": None, "num_class_embeds": None,
    "only_cross_attention": False, "resnet_out_scale_factor": 1.0, "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default", "time_cond_proj_dim": None, "time_embedding_act_fn": None, "time_embedding_dim": None,
    "time_embedding_type": "positional", "timestep_post_act": None, "transformer_layers_per_block": 1, "upcast_attention": False,
    "use_linear_projection": False,
}
VAE_ASSUMES = {"act_fn": "silu", "use_quant_conv": True, "use_post_quant_conv": True}
TINY_VAE_ASSUMES = {"act_fn": "relu", "upsampling_scaling_factor": 2, "upsample_fn": "nearest"}
TEXT_ASSUMES = {"hidden_act": "quick_gelu"}
VISION_ASSUMES = {"hidden_act": "quick_gelu", "num_channels": 3}
FALSY = (None, False)


def read(folder, part, assumes):
    """The config of `part`, as a dict. Raises if it belongs to another model family."""
    path = Path(folder) / part / "config.json"
    config = json.loads(path.read_text())
    for key, value in assumes.items():
        given = config.get(key, value)
        if given != value and not (given in FALSY and value in FALSY):
            raise SystemExit(f"{path}: {key} is {given!r}; these graphs are for {value!r}")
    return config


def text_encoder(folder):
    """CLIPTextModel's config."""
    return read(folder, "text_encoder", TEXT_ASSUMES)


def unet(folder):
    """UNet2DConditionModel's config."""
    config = read(folder, "unet", UNET_ASSUMES)
    if not isinstance(config["attention_head_dim"], int):
        raise SystemExit(f"{folder}: attention_head_dim is a list; Stable Diffusion v1 has one number of heads for all levels")
    return config


def vae(folder):
    """AutoencoderKL's config."""
    return read(folder, "vae", VAE_ASSUMES)


def vae_tiny(folder):
    """AutoencoderTiny's config."""
    return read(folder, "vae_tiny", TINY_VAE_ASSUMES)


def safety_checker(folder):
    """CLIPConfig's, with the sizes of the vision model."""
    config = read(folder, "safety_checker", {})
    for key, value in VISION_ASSUMES.items():
        if config["vision_config"].get(key, value) != value:
            raise SystemExit(f"{folder}: the safety checker's {key} is {config['vision_config'][key]!r}; this graph is for {value!r}")
    return config
