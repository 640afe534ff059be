"""The denoising network (diffusers' UNet2DConditionModel, as Stable Diffusion v1 uses it)."""
import copy
import math

import numpy as np

NORM_EPSILON_OF_TRANSFORMERS = 1e-6
# What comes into the last layer of the way up, beside the first skip connection.
DEEP_FEATURE = "deep_feature"


def build(net, config):
    """sample [b, c, h, w], timestep [b], encoder_hidden_states [b, tokens, dim] -> out_sample [b, 4, h, w].

    With `time_cond_proj_dim`, also timestep_cond [b, time_cond_proj_dim]: the embedding of the guidance scale.
    With `is_controlled`, also down_block_residual.0 … and mid_block_residual, which ControlNets give: the sums of theirs.
    The parameters and their order stay the same, so that one buffer of weights serves both graphs.
    Without, another output is deep_feature [b, c₀, h, w], for `build_shallow`.
    """
    channels = config["block_out_channels"]
    unet, x = begin(net, config)
    x = unet.mid_block(unet.down_blocks(x), channels[-1])
    if config.get("is_controlled"):
        for i, ((skip, c), level) in enumerate(zip(unet.skips, unet.skip_levels())):
            unet.skips[i] = add_residual(net, skip, f"down_block_residual.{i}", c, level), c
        x = add_residual(net, x, "mid_block_residual", channels[-1], len(channels) - 1)
    end(unet, unet.up_blocks(x))
    if not config.get("is_controlled"):
        net.output(net.image_out(unet.deep), DEEP_FEATURE, ["batch", channels[0], "height", "width"])


def build_shallow(net, config):
    """The same inputs and deep_feature [b, c₀, h, w] -> out_sample: the first convolution, the last layer of the way up, and
    the last convolution. All between is in the deep feature, which comes from an earlier call of the whole UNet (DeepCache,
    Ma et al. 2023, arXiv 2312.00858, with a branch at the first skip connection).

    The parameters lie where the whole UNet has them.
    """
    whole = copy.deepcopy(net)
    build(whole, config)
    net.places = whole.parameters
    unet, x = begin(net, config)
    unet.skips.append((x, unet.channels[0]))
    deep = net.image_in(net.input(DEEP_FEATURE, ["batch", unet.channels[0], "height", "width"]))
    end(unet, unet.up_layer(deep, len(unet.channels) - 1, unet.layers, unet.channels[0]))


def begin(net, config):
    """The inputs, the time embedding, and the first convolution of the sample."""
    sample = net.input("sample", ["batch", config["in_channels"], "height", "width"])
    timestep = net.input("timestep", ["batch"])
    context = net.input("encoder_hidden_states", ["batch", "tokens", config["cross_attention_dim"]])
    unet = UNet(net, config, net.from_float(context))
    x = net.conv(net.image_in(sample), "conv_in", config["in_channels"], unet.channels[0])
    guidance_dim = config.get("time_cond_proj_dim")
    guidance = net.input("timestep_cond", ["batch", guidance_dim]) if guidance_dim else None
    unet.time = time_embedding(net, timestep, guidance, config)
    return unet, x


def end(unet, x):
    """From the last layer to the output."""
    net, channels, c_out = unet.net, unet.channels[0], unet.config["out_channels"]
    x = net.group_norm(x, "conv_norm_out", channels, unet.groups, unet.epsilon, silu=True)
    x = net.conv(x, "conv_out", channels, c_out)
    net.output(net.image_out(x), "out_sample", ["batch", c_out, "height", "width"])


def add_residual(net, x, name, channels, level):
    """An image plus the input `name`, in the shape of the image."""
    return net.op("Add", x, net.image_in(net.input(name, ["batch", channels, *size_at(level)])))


def size_at(level):
    """The names of the height and width at a level: those of the latents, halved and rounded up so many times."""
    return [f"{side}.{level}" if level else side for side in ("height", "width")]


def time_embedding(net, timestep, guidance, config):
    """timestep [b] (and guidance [b, dim]) -> SiLU of the embedding [b, 4 × c₀]. All its users need it after SiLU."""
    width = config["block_out_channels"][0]
    half = width // 2
    exponents = -math.log(10000) * np.arange(half, dtype=np.float32) / np.float32(half - config.get("freq_shift", 0))
    angles = net.op("Mul", net.op("Unsqueeze", timestep, net.ints(1)), net.constant(np.exp(exponents)[None]))
    halves = [net.op("Sin", angles), net.op("Cos", angles)]
    if config.get("flip_sin_to_cos", True):
        halves.reverse()
    x = net.from_float(net.op("Concat", *halves, axis=-1))
    if guidance:
        guidance_dim = config["time_cond_proj_dim"]
        x = net.op("Add", x, net.linear(net.from_float(guidance), "time_embedding.cond_proj", guidance_dim, width, bias=False))
    x = net.silu(net.linear(x, "time_embedding.linear_1", width, 4 * width))
    return net.silu(net.linear(x, "time_embedding.linear_2", 4 * width, 4 * width))


class UNet:
    """The blocks of the UNet. They share the context, the time embedding and the skip connections."""

    def __init__(self, net, config, context):
        self.net, self.config, self.context = net, config, context
        self.groups, self.epsilon = config["norm_num_groups"], config.get("norm_eps", 1e-5)
        self.channels, self.layers = config["block_out_channels"], config["layers_per_block"]
        self.time = None
        self.deep = None
        self.skips = []  # (value, channels), the newest last

    def down_blocks(self, x):
        """From full size to the smallest size. Stores the skip connections."""
        c_in = self.channels[0]
        self.skips.append((x, c_in))
        for i, (kind, c) in enumerate(zip(self.config["down_block_types"], self.channels)):
            block = f"down_blocks.{i}"
            for j in range(self.layers):
                x = self.resnet(x, f"{block}.resnets.{j}", c_in, c)
                if kind == "CrossAttnDownBlock2D":
                    x = self.transformer(x, f"{block}.attentions.{j}", c)
                elif kind != "DownBlock2D":
                    raise SystemExit(f"{kind} is not a block of Stable Diffusion v1")
                self.skips.append((x, c))
                c_in = c
            if i + 1 < len(self.channels):
                x = self.net.conv(x, f"{block}.downsamplers.0.conv", c, c, stride=2)
                self.skips.append((x, c))
        return x

    def skip_levels(self):
        """How often the size of each skip connection has been halved."""
        levels = [0]
        for i in range(len(self.channels)):
            levels += [i] * self.layers
            if i + 1 < len(self.channels):
                levels.append(i + 1)
        return levels

    def mid_block(self, x, c):
        x = self.resnet(x, "mid_block.resnets.0", c, c)
        x = self.transformer(x, "mid_block.attentions.0", c)
        return self.resnet(x, "mid_block.resnets.1", c, c)

    def up_blocks(self, x):
        """From the smallest size to full size. Uses the skip connections, the newest first."""
        c_in = self.channels[-1]
        for i, c in enumerate(reversed(self.channels)):
            for j in range(self.layers + 1):
                self.deep = x
                x = self.up_layer(x, i, j, c_in)
                c_in = c
            if i + 1 < len(self.channels):
                # Upsample to the size of the skip connection: halving an odd size rounds up, so doubling would be too large.
                x = self.net.upsample(x, like=self.skips[-1][0])
                x = self.net.conv(x, f"up_blocks.{i}.upsamplers.0.conv", c, c)
        return x

    def up_layer(self, x, i, j, c_in):
        """Layer `j` of block `i` of the way up, with the newest skip connection."""
        block, kind, c = f"up_blocks.{i}", self.config["up_block_types"][i], self.channels[-1 - i]
        skip, c_skip = self.skips.pop()
        x = self.net.concat_channels(x, skip)
        x = self.resnet(x, f"{block}.resnets.{j}", c_in + c_skip, c)
        if kind == "CrossAttnUpBlock2D":
            x = self.transformer(x, f"{block}.attentions.{j}", c)
        elif kind != "UpBlock2D":
            raise SystemExit(f"{kind} is not a block of Stable Diffusion v1")
        return x

    def resnet(self, x, name, c_in, c_out):
        """A residual block that adds the time embedding in the middle."""
        net = self.net
        h = net.group_norm(x, f"{name}.norm1", c_in, self.groups, self.epsilon, silu=True)
        time = net.linear(self.time, f"{name}.time_emb_proj", 4 * self.channels[0], c_out)
        h = net.conv_add_time(h, f"{name}.conv1", c_in, c_out, time, f"{name}.norm2", self.groups, self.epsilon)
        if c_in != c_out:
            x = net.conv(x, f"{name}.conv_shortcut", c_in, c_out, kernel=1)
        return net.conv(h, f"{name}.conv2", c_out, c_out, plus=x)

    def transformer(self, x, name, c):
        """Self-attention, attention to the context, and feed-forward. The positions of the image are the tokens."""
        net, heads = self.net, self.config["attention_head_dim"]  # diffusers' name for the number of heads
        block, dim = f"{name}.transformer_blocks.0", self.config["cross_attention_dim"]
        h = net.group_norm(x, f"{name}.norm", c, self.groups, NORM_EPSILON_OF_TRANSFORMERS)
        h = net.to_tokens(net.conv(h, f"{name}.proj_in", c, c, kernel=1), c)

        normed = net.layer_norm(h, f"{block}.norm1", c)
        attended = self.attention(normed, normed, f"{block}.attn1", c, c, heads)
        h, normed = net.linear_add_and_norm(attended, h, f"{block}.attn1.to_out.0", f"{block}.norm2", c)
        attended = self.attention(normed, self.context, f"{block}.attn2", c, dim, heads)
        h, normed = net.linear_add_and_norm(attended, h, f"{block}.attn2.to_out.0", f"{block}.norm3", c)
        gated = net.geglu(normed, f"{block}.ff.net.0.proj", c, 4 * c)
        h = net.linear(gated, f"{block}.ff.net.2", 4 * c, c, plus=h)

        return net.conv(net.to_image(h, like=x), f"{name}.proj_out", c, c, kernel=1, plus=x)

    def attention(self, x, context, name, c, c_context, heads):
        """[b, n, c], [b, m, c_context] -> [b, n, c], without the output projection."""
        net = self.net
        q = net.linear(x, f"{name}.to_q", c, c, bias=False)
        k = net.linear(context, f"{name}.to_k", c_context, c, bias=False)
        v = net.linear(context, f"{name}.to_v", c_context, c, bias=False)
        return net.attention(q, k, v, heads, c)
