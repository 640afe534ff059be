"""The names that original Stable Diffusion v1 checkpoints (CompVis' latent diffusion) have for diffusers' parameters."""
import re

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET_TOP = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0", "conv_out": "out.2",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet(name, config):
    """A UNet parameter's name."""
    layers = config["layers_per_block"]
    top, _, leaf = name.rpartition(".")
    if top in UNET_TOP:
        return f"model.diffusion_model.{UNET_TOP[top]}.{leaf}"
    side, block, kind, j, rest = re.fullmatch(
        r"(down_blocks|mid_block|up_blocks)(?:\.(\d+))?\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name).groups()
    i, j = int(block or 0), int(j)
    if kind == "resnets":
        part, rest = rest.split(".", 1)
        rest = f"{RESNET[part]}.{rest}"
    place = 1 if kind == "attentions" else 0
    if side == "mid_block":
        module = "middle_block.1" if kind == "attentions" else f"middle_block.{2 * j}"
    elif kind == "downsamplers":
        module, rest = f"input_blocks.{(i + 1) * (layers + 1)}.0", rest.replace("conv", "op", 1)
    elif kind == "upsamplers":
        # After the resnet, and after the attention if the block has one.
        module = f"output_blocks.{i * (layers + 1) + layers}.{2 if 'CrossAttn' in config['up_block_types'][i] else 1}"
    elif side == "down_blocks":
        module = f"input_blocks.{1 + i * (layers + 1) + j}.{place}"
    else:
        module = f"output_blocks.{i * (layers + 1) + j}.{place}"
    return f"model.diffusion_model.{module}.{rest}"


def vae(name, config):
    """A VAE parameter's name."""
    levels = len(config["block_out_channels"])
    name = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(r"mid_block\.attentions\.0\.(.*)\.(\w+)$", lambda m: f"mid.attn_1.{VAE_ATTENTION[m[1]]}.{m[2]}", name)
    return "first_stage_model." + name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")


def is_vae_attention(name):
    """Whether the original has this linear weight as a convolution of 1 × 1."""
    return bool(re.search(r"attentions\.0\.to_.*weight$", name))


def text_encoder(name):
    """A text encoder parameter's name, from transformers' without its model's prefix."""
    return f"cond_stage_model.transformer.text_model.{name}"


def ema(name):
    """The name of a UNet parameter's running average, from its own name in the checkpoint."""
    return "model_ema." + name.removeprefix("model.").replace(".", "")
