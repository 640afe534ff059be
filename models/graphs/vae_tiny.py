"""The decoder of a tiny VAE (diffusers' AutoencoderTiny, TAESD): latents as the UNet has them to pixels.

It has no norms and no attention: convolutions with ReLU, all of one width, so the builds keep the images in the layout of their
convolutions from the first to the last.
"""
import numpy as np

# The range that the latents are squeezed into.
MAGNITUDE = 3.0


def build_decoder(net, config):
    """latent_sample [b, latent channels, h, w], scaled as the UNet has them -> sample [b, 3, 8h, 8w], about -1 to 1."""
    width, latent, levels = config["decoder_block_out_channels"][0], config["latent_channels"], config["num_decoder_blocks"]
    sample = net.input("latent_sample", ["batch", latent, "latent_height", "latent_width"])
    squeezed = net.op("Tanh", net.op("Mul", sample, scalar(net, 1 / MAGNITUDE)))
    x = net.image_in(net.op("Mul", squeezed, scalar(net, MAGNITUDE)))
    # The numbers count what has no parameters as well: ReLU, and upsampling.
    x = net.conv_relu(x, "decoder.layers.0", latent, width)
    x, number = net.blocks_in(x), 2
    for level, blocks in enumerate(levels):
        for _ in range(blocks):
            x = block(net, x, f"decoder.layers.{number}", width)
            number += 1
        if level + 1 < len(levels):
            x = net.conv_relu(net.double(x), f"decoder.layers.{number + 1}", width, width, bias=False, relu=False)
            number += 2
    x = net.conv_relu(net.blocks_out(x, width), f"decoder.layers.{number}", width, config["out_channels"], relu=False)
    pixels = net.op("Sub", net.op("Mul", net.image_out(x), scalar(net, 2.0)), scalar(net, 1.0))
    net.output(pixels, "sample", ["batch", config["out_channels"], "height", "width"])


def block(net, x, name, width):
    """Three convolutions beside the image itself."""
    h = net.conv_relu(x, f"{name}.conv.0", width, width)
    h = net.conv_relu(h, f"{name}.conv.2", width, width)
    return net.conv_relu(h, f"{name}.conv.4", width, width, plus=x)


def scalar(net, value):
    return net.constant(np.array(value, np.float32))
