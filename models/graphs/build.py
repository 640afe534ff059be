"""Writes the weightless graphs of a Stable Diffusion v1 model. Each one is compared with torch first.

    python build.py                     # sd-v1/: Stable Diffusion v1, with 4, 8 and 9 input channels
    python build.py ../tiny-sd          # ../tiny-sd/graphs/: the model with the config.json files of that folder
    python build.py --only unet --only vae_decoder …
"""
import argparse
import gc
from pathlib import Path

from onnx import TensorProto

import check
import config
import controlnet
import safety_checker
import text_encoder
import torch_models
import unet
import vae
import vae_tiny
from cpu import CpuGraph
from cuda import CudaGraph
from nchwc import NchwcGraph
from winograd import WinogradGraph, written_out


BUILDS = ("cpu", "nchwc", "winograd", "cuda")
OF_CONVOLUTIONS = ("nchwc", "winograd")


def unet_inpainting_config(folder):
    """Inpainting checkpoints have 9 input channels: latents, mask, and the latents of the masked image."""
    return {**config.unet(folder), "in_channels": 9}


def unet_guided_config(folder):
    """Latent consistency models take the guidance scale as an embedding of 256 values."""
    return {**config.unet(folder), "time_cond_proj_dim": 256}


def unet_pix2pix_config(folder):
    """InstructPix2Pix has 8 input channels: latents, and those of the picture to change."""
    return {**config.unet(folder), "in_channels": 8}


def unet_controlled_config(folder):
    """A UNet that takes the sums of what ControlNets give."""
    return {**config.unet(folder), "is_controlled": True}


def unet_inpainting_controlled_config(folder):
    return {**unet_inpainting_config(folder), "is_controlled": True}


# name: (config, builder of the graph, torch module, the outputs that the graph computes, test cases)
PARTS = {
    "text_encoder": (config.text_encoder, text_encoder.build, torch_models.text_encoder,
                     torch_models.TextEncoder, check.text_encoder_cases),
    "unet": (config.unet, unet.build, torch_models.unet, lambda m, _: torch_models.whole(m), check.unet_cases),
    "unet_inpainting": (unet_inpainting_config, unet.build, torch_models.unet,
                        lambda m, _: torch_models.whole(m), check.unet_cases),
    "unet_guided": (unet_guided_config, unet.build, torch_models.unet,
                    lambda m, _: torch_models.whole(m), check.guided_unet_cases),
    "unet_pix2pix": (unet_pix2pix_config, unet.build, torch_models.unet,
                     lambda m, _: torch_models.whole(m), check.unet_cases),
    "unet_shallow": (config.unet, unet.build_shallow, torch_models.shallow_unet,
                     lambda m, _: torch_models.shallow(m), check.shallow_unet_cases),
    "unet_inpainting_shallow": (unet_inpainting_config, unet.build_shallow, torch_models.shallow_unet,
                                lambda m, _: torch_models.shallow(m), check.shallow_unet_cases),
    "unet_guided_shallow": (unet_guided_config, unet.build_shallow, torch_models.shallow_unet,
                            lambda m, _: torch_models.shallow(m), check.shallow_unet_cases),
    "unet_pix2pix_shallow": (unet_pix2pix_config, unet.build_shallow, torch_models.shallow_unet,
                             lambda m, _: torch_models.shallow(m), check.shallow_unet_cases),
    "controlnet": (config.unet, controlnet.build, torch_models.controlnet,
                   lambda m, _: torch_models.residuals(m), check.controlnet_cases),
    "unet_controlled": (unet_controlled_config, unet.build, torch_models.unet,
                        lambda m, _: torch_models.controlled(m), check.controlled_unet_cases),
    "unet_inpainting_controlled": (unet_inpainting_controlled_config, unet.build, torch_models.unet,
                                   lambda m, _: torch_models.controlled(m), check.controlled_unet_cases),
    "vae_decoder": (config.vae, vae.build_decoder, torch_models.vae,
                    lambda m, _: lambda x: [m.decode(x).sample], check.decoder_cases),
    "vae_encoder": (config.vae, vae.build_encoder, torch_models.vae,
                    lambda m, _: lambda x: [m.quant_conv(m.encoder(x))], check.encoder_cases),
    "vae_tiny": (config.vae_tiny, vae_tiny.build_decoder, torch_models.vae_tiny,
                 lambda m, _: lambda x: [m.decode(x).sample], check.decoder_cases),
    "safety_checker": (config.safety_checker, safety_checker.build, torch_models.safety_checker,
                       lambda m, _: torch_models.safety_scores(m), check.checker_cases),
}
# CLIP's networks have no convolutions that a processor would do in blocks.
WITHOUT_CONVOLUTIONS = ("text_encoder", "safety_checker")
# Its convolutions are narrow, and stay in blocks from the first to the last. A loader without this build takes the one of blocks.
WITHOUT_WINOGRAD = ("vae_tiny",)
# Of a folder, these are written only where --only names them: few models have them.
ONLY_BY_NAME = ("unet_inpainting", "unet_guided", "unet_pix2pix", "unet_inpainting_shallow", "unet_guided_shallow",
                "unet_pix2pix_shallow", "unet_inpainting_controlled", "safety_checker")


def graph(net, build, settings):
    """The ModelProto of one part, with the layers of `net`."""
    build(net, settings)
    return net.model()


def write(folder, out, name, builds):
    """Builds, checks and writes one part."""
    read, build, module_of, reference_of, cases = PARTS[name]
    settings = read(folder)
    module = module_of(settings)
    reference = reference_of(module, settings)

    for kind, layers in (("cpu", CpuGraph), ("nchwc", NchwcGraph), ("winograd", WinogradGraph)):
        is_none = kind in OF_CONVOLUTIONS and name in WITHOUT_CONVOLUTIONS or kind == "winograd" and name in WITHOUT_WINOGRAD
        if kind in builds and not is_none:
            net = graph(layers(name), build, settings)
            error = check.on_cpu(written_out(net), module, reference, cases(settings))
            save(out / f"{name}.{kind}.onnx", net, (error, check.TOLERANCE))
    if "cuda" not in builds:
        return

    # In float32 the graph must be right; in float16 it must stay near.
    twin = graph(CudaGraph(name, TensorProto.FLOAT), build, settings)
    error = check.by_reference(twin, module, reference, cases(settings))
    cuda = graph(CudaGraph(name), build, settings)
    check.resolves(cuda)
    half_error = check.by_reference(cuda, module, reference, cases(settings))
    save(out / f"{name}.cuda.onnx", cuda, (error, check.TOLERANCE), (half_error, check.HALF_TOLERANCE))


def convolution_probe():
    """One blocked convolution. A loader runs it to find out whether the processor has them, and in which block size."""
    net = NchwcGraph("probe")
    net.output(net.conv(net.input("x", [1, 16, 1, 1]), "probe", 16, 16, kernel=1), "y", [1, 16, 1, 1])
    return net.model()


def speed_probe(layers):
    """One 3×3 convolution, of the channels at the UNet's first level. A loader times its builds."""
    net = layers("probe")
    shape = ["batch", 320, "height", "width"]
    net.output(net.conv(net.input("x", shape), "probe", 320, 320), "y", shape)
    return net.model()


def attention_probe():
    """Attention with 8 heads of any width. A loader runs it to find out which of a card's attention kernels are right."""
    net = CudaGraph("probe")
    q = net.input("query", ["batch", "queries", "width"])
    k, v = (net.input(name, ["batch", "keys", "width"]) for name in ("key", "value"))
    halves = [net.from_float(x) for x in (q, k, v)]
    y = net.microsoft("MultiHeadAttention", *halves, num_heads=8)
    net.output(net.to_float(y), "attended", ["batch", "queries", "width"])
    return net.model()


def save(path, model, *errors):
    """Writes the graph, unless one of its errors exceeds its tolerance."""
    for error, allowed in errors:
        if not error < allowed:
            raise SystemExit(f"{path.name} differs from torch by {error:.1e}, but only {allowed:.0e} is allowed: not written")
    path.write_bytes(model.SerializeToString())
    shown = ", ".join(f"{error:.1e}" for error, _ in errors)
    print(f"{path.name:28} {path.stat().st_size:>9,} bytes  {len(model.graph.node):5} nodes  error {shown}", flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", nargs="?", type=Path, help="a diffusers folder (default: sd-v1/)")
    arguments.add_argument("--only", action="append", choices=PARTS, help="build only this part; may be repeated")
    arguments.add_argument("--build", action="append", choices=BUILDS, help="write only this build; may be repeated")
    given = arguments.parse_args()
    folder = given.folder or config.SD_V1
    out = folder / "graphs" if given.folder else folder
    out.mkdir(parents=True, exist_ok=True)
    usual = [p for p in PARTS if p not in ONLY_BY_NAME or not given.folder]
    has_tiny_vae = (folder / "vae_tiny").is_dir()
    parts = given.only or [p for p in usual if p != "vae_tiny" or has_tiny_vae]
    if not given.folder:
        (out.parent / "probe.nchwc.onnx").write_bytes(convolution_probe().SerializeToString())
        (out.parent / "probe.speed.nchwc.onnx").write_bytes(speed_probe(NchwcGraph).SerializeToString())
        (out.parent / "probe.speed.winograd.onnx").write_bytes(speed_probe(WinogradGraph).SerializeToString())
        (out.parent / "probe.attention.onnx").write_bytes(attention_probe().SerializeToString())
    for name in parts:
        write(folder, out, name, given.build or BUILDS)
        gc.collect()


if __name__ == "__main__":
    main()
