"""The autoencoder (diffusers' AutoencoderKL): pixels to the moments of latents, and latents to pixels."""

EPSILON = 1e-6


def build_encoder(net, config):
    """sample [b, 3, 8h, 8w] -> latent_parameters [b, 2 × latent channels, h, w]: means, then log-variances (not clamped)."""
    channels, groups, latent = config["block_out_channels"], config["norm_num_groups"], config["latent_channels"]
    sample = net.input("sample", ["batch", config["in_channels"], "height", "width"])
    x = net.conv(net.image_in(sample), "encoder.conv_in", config["in_channels"], channels[0])
    c_in = channels[0]
    for i, (kind, c) in enumerate(zip(config["down_block_types"], channels)):
        assert kind == "DownEncoderBlock2D", kind
        for j in range(config["layers_per_block"]):
            x = resnet(net, x, f"encoder.down_blocks.{i}.resnets.{j}", c_in, c, groups)
            c_in = c
        if i + 1 < len(channels):
            # Padding only at the right and the bottom.
            x = net.conv(x, f"encoder.down_blocks.{i}.downsamplers.0.conv", c, c, stride=2, pads=[0, 0, 1, 1])
    x = mid_block(net, x, "encoder.mid_block", config)
    x = net.group_norm(x, "encoder.conv_norm_out", channels[-1], groups, EPSILON, silu=True)
    x = net.conv(x, "encoder.conv_out", channels[-1], 2 * latent)
    x = net.conv(x, "quant_conv", 2 * latent, 2 * latent, kernel=1)
    net.output(net.image_out(x), "latent_parameters", ["batch", 2 * latent, "latent_height", "latent_width"])


def build_decoder(net, config):
    """latent_sample [b, latent channels, h, w] -> sample [b, 3, 8h, 8w], about -1 to 1."""
    channels, groups, latent = config["block_out_channels"], config["norm_num_groups"], config["latent_channels"]
    sample = net.input("latent_sample", ["batch", latent, "latent_height", "latent_width"])
    x = net.conv(net.image_in(sample), "post_quant_conv", latent, latent, kernel=1)
    x = net.conv(x, "decoder.conv_in", latent, channels[-1])
    x = mid_block(net, x, "decoder.mid_block", config)
    c_in = channels[-1]
    for i, (kind, c) in enumerate(zip(config["up_block_types"], reversed(channels))):
        assert kind == "UpDecoderBlock2D", kind
        for j in range(config["layers_per_block"] + 1):
            x = resnet(net, x, f"decoder.up_blocks.{i}.resnets.{j}", c_in, c, groups)
            c_in = c
        if i + 1 < len(channels):
            x = net.conv(net.upsample(x), f"decoder.up_blocks.{i}.upsamplers.0.conv", c, c)
    x = net.group_norm(x, "decoder.conv_norm_out", channels[0], groups, EPSILON, silu=True)
    x = net.conv(x, "decoder.conv_out", channels[0], config["out_channels"])
    net.output(net.image_out(x), "sample", ["batch", config["out_channels"], "height", "width"])


def mid_block(net, x, name, config):
    """Two residual blocks, with attention between them if the config has it."""
    c, groups = config["block_out_channels"][-1], config["norm_num_groups"]
    x = resnet(net, x, f"{name}.resnets.0", c, c, groups)
    if config.get("mid_block_add_attention", True):
        x = attention(net, x, f"{name}.attentions.0", c, groups)
    return resnet(net, x, f"{name}.resnets.1", c, c, groups)


def attention(net, x, name, c, groups):
    """Attention over the positions of the image, with one head as wide as all channels."""
    tokens = net.to_tokens(net.group_norm(x, f"{name}.group_norm", c, groups, EPSILON), c)
    q, k, v = (net.linear(tokens, f"{name}.to_{p}", c, c) for p in "qkv")
    attended = net.linear(net.attention(q, k, v, 1, c), f"{name}.to_out.0", c, c)
    return net.op("Add", net.to_image(attended, like=x), x)


def resnet(net, x, name, c_in, c_out, groups):
    """Residual block."""
    h = net.group_norm(x, f"{name}.norm1", c_in, groups, EPSILON, silu=True)
    h = net.conv(h, f"{name}.conv1", c_in, c_out)
    h = net.group_norm(h, f"{name}.norm2", c_out, groups, EPSILON, silu=True)
    if c_in != c_out:
        x = net.conv(x, f"{name}.conv_shortcut", c_in, c_out, kernel=1)
    return net.conv(h, f"{name}.conv2", c_out, c_out, plus=x)
