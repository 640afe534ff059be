"""The ControlNet (diffusers' ControlNetModel): the UNet's way down once more, which also sees a picture, the hint.

Its outputs are added to the UNet's skip connections and to its middle.
"""
from unet import UNet, size_at, time_embedding

# Channels of the layers that bring the hint to the size of the latents, as all ControlNets of Stable Diffusion v1 have them.
HINT_CHANNELS = (16, 32, 96, 256)
HINT_SCALE = 8


def build(net, config):
    """sample [b, 4, h, w], timestep [b], encoder_hidden_states [b, tokens, dim], controlnet_cond [1 or b, 3, 8h, 8w] ->
    down_block_residual.0 … , mid_block_residual: one for each skip connection of the UNet, and one for its middle.
    """
    channels = config["block_out_channels"]
    sample = net.input("sample", ["batch", config["in_channels"], "height", "width"])
    timestep = net.input("timestep", ["batch"])
    context = net.input("encoder_hidden_states", ["batch", "tokens", config["cross_attention_dim"]])
    hint = net.input("controlnet_cond", ["hints", 3, "hint_height", "hint_width"])
    unet = UNet(net, config, net.from_float(context))

    x = net.conv(net.image_in(sample), "conv_in", config["in_channels"], channels[0])
    x = net.op("Add", x, hint_embedding(net, net.image_in(hint), channels[0]))
    unet.time = time_embedding(net, timestep, None, config)
    x = unet.mid_block(unet.down_blocks(x), channels[-1])
    for i, ((skip, c), level) in enumerate(zip(unet.skips, unet.skip_levels())):
        residual(net, skip, f"controlnet_down_blocks.{i}", f"down_block_residual.{i}", c, level)
    residual(net, x, "controlnet_mid_block", "mid_block_residual", channels[-1], len(channels) - 1)


def hint_embedding(net, x, c_out):
    """The hint [1 or b, 3, 8h, 8w] -> [1 or b, c_out, h, w]. Every second layer halves its size."""
    name = "controlnet_cond_embedding"
    x = net.silu(net.conv(x, f"{name}.conv_in", 3, HINT_CHANNELS[0]))
    for i, (c, c_next) in enumerate(zip(HINT_CHANNELS, HINT_CHANNELS[1:])):
        x = net.silu(net.conv(x, f"{name}.blocks.{2 * i}", c, c))
        x = net.silu(net.conv(x, f"{name}.blocks.{2 * i + 1}", c, c_next, stride=2))
    return net.conv(x, f"{name}.conv_out", HINT_CHANNELS[-1], c_out)


def residual(net, x, name, output, channels, level):
    """A convolution that is zero before the training, and its output."""
    x = net.image_out(net.conv(x, name, channels, channels, kernel=1))
    net.output(x, output, ["batch", channels, *size_at(level)])
