"""Writes the weightless graphs of a Stable Diffusion v1 model, each after holding it against torch.

    python build.py                     # sd-v1/: Stable Diffusion v1, with 4 and with 9 input channels
    python build.py ../tiny-sd          # ../tiny-sd/graphs/: the model whose config.json files that folder holds
    python build.py --only unet --only vae_decoder …
"""
import argparse
import gc
from pathlib import Path

from onnx import TensorProto

import check
import config
import text_encoder
import torch_models
import unet
import vae
from cpu import CpuGraph
from cuda import CudaGraph
from nchwc import NchwcGraph


BUILDS = ("cpu", "nchwc", "cuda")


def unet_inpainting_config(folder):
    """Inpainting checkpoints: latents, mask, masked image's latents."""
    return {**config.unet(folder), "in_channels": 9}


# name: (config, the graph's nodes, torch's module, what of it the graph computes, cases)
PARTS = {
    "text_encoder": (config.text_encoder, text_encoder.build, torch_models.text_encoder,
                     torch_models.TextEncoder, check.text_encoder_cases),
    "unet": (config.unet, unet.build, torch_models.unet,
             lambda m, _: lambda *a: [m(*a).sample], check.unet_cases),
    "unet_inpainting": (unet_inpainting_config, unet.build, torch_models.unet,
                        lambda m, _: lambda *a: [m(*a).sample], check.unet_cases),
    "vae_decoder": (config.vae, vae.build_decoder, torch_models.vae,
                    lambda m, _: lambda x: [m.decode(x).sample], check.decoder_cases),
    "vae_encoder": (config.vae, vae.build_encoder, torch_models.vae,
                    lambda m, _: lambda x: [m.quant_conv(m.encoder(x))], check.encoder_cases),
}


def graph(net, build, settings):
    """The ModelProto of one part, of the layers that `net` has."""
    build(net, settings)
    return net.model()


def write(folder, out, name, builds):
    """Builds, checks and writes one part."""
    read, build, module_of, reference_of, cases = PARTS[name]
    settings = read(folder)
    module = module_of(settings)
    reference = reference_of(module, settings)

    # A text encoder has no convolutions.
    for kind, layers in (("cpu", CpuGraph), ("nchwc", NchwcGraph)):
        if kind in builds and (kind, name) != ("nchwc", "text_encoder"):
            net = graph(layers(name), build, settings)
            error = check.on_cpu(net, module, reference, cases(settings))
            save(out / f"{name}.{kind}.onnx", net, (error, check.TOLERANCE))
    if "cuda" not in builds:
        return

    # The same graph in float32 shows that it is right, and then in float16 that it stays near.
    twin = graph(CudaGraph(name, TensorProto.FLOAT), build, settings)
    error = check.by_reference(twin, module, reference, cases(settings))
    cuda = graph(CudaGraph(name), build, settings)
    check.resolves(cuda)
    half_error = check.by_reference(cuda, module, reference, cases(settings))
    save(out / f"{name}.cuda.onnx", cuda, (error, check.TOLERANCE), (half_error, check.HALF_TOLERANCE))


def convolution_probe():
    """One convolution in blocks, for a loader to try out whether, and in which blocks, its processor has them."""
    net = NchwcGraph("probe")
    net.output(net.conv(net.input("x", [1, 16, 1, 1]), "probe", 16, 16, kernel=1), "y", [1, 16, 1, 1])
    return net.model()


def attention_probe():
    """Attention of 8 heads of any width, for a loader to try out which of a card's kernels for it are right."""
    net = CudaGraph("probe")
    q = net.input("query", ["batch", "queries", "width"])
    k, v = (net.input(name, ["batch", "keys", "width"]) for name in ("key", "value"))
    halves = [net.from_float(x) for x in (q, k, v)]
    y = net.microsoft("MultiHeadAttention", *halves, num_heads=8)
    net.output(net.to_float(y), "attended", ["batch", "queries", "width"])
    return net.model()


def save(path, model, *errors):
    """Writes the graph, unless one of its errors is beyond what it is allowed."""
    for error, allowed in errors:
        if not error < allowed:
            raise SystemExit(f"{path.name}: {error:.1e} from torch, {allowed:.0e} allowed; not written")
    path.write_bytes(model.SerializeToString())
    shown = ", ".join(f"{error:.1e}" for error, _ in errors)
    print(f"{path.name:28} {path.stat().st_size:>9,} bytes  {len(model.graph.node):5} nodes  error {shown}", flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", nargs="?", type=Path, help="a diffusers folder (default: sd-v1/ here)")
    arguments.add_argument("--only", action="append", choices=PARTS, help="this part alone; may be repeated")
    arguments.add_argument("--build", action="append", choices=BUILDS, help="this build alone; may be repeated")
    given = arguments.parse_args()
    folder = given.folder or config.SD_V1
    out = folder / "graphs" if given.folder else folder
    out.mkdir(parents=True, exist_ok=True)
    parts = given.only or [p for p in PARTS if p != "unet_inpainting" or not given.folder]
    if not given.folder:
        (out.parent / "probe.nchwc.onnx").write_bytes(convolution_probe().SerializeToString())
        (out.parent / "probe.attention.onnx").write_bytes(attention_probe().SerializeToString())
    for name in parts:
        write(folder, out, name, given.build or BUILDS)
        gc.collect()


if __name__ == "__main__":
    main()
