"""Measures OpenVINO in float32, with graphs that it converts from diffusers' networks once: python openvino_peer.py MODEL"""
import sys
from pathlib import Path

import numpy as np
import openvino

from figures import ROWS, SIDE, THREADS, TOKENS, WIDTH, peak_mb, seconds, tell

SETTINGS = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": THREADS}
LATENT = SIDE // 8


def convert(folder):
    """Writes the two graphs. The shapes are fixed, which is what OpenVINO likes best."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    common = {"variant": "fp16", "torch_dtype": torch.float32, "local_files_only": True}

    class Unet(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unet = UNet2DConditionModel.from_pretrained(folder / "diffusers/unet", **common)

        def forward(self, latents, timestep, text):
            return self.unet(latents, timestep, text, return_dict=False)[0]

    class Decoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.vae = AutoencoderKL.from_pretrained(folder / "diffusers/vae", **common)

        def forward(self, latents):
            return self.vae.decode(latents, return_dict=False)[0]

    unet = (torch.randn(ROWS, 4, LATENT, LATENT), torch.tensor(500), torch.randn(ROWS, TOKENS, WIDTH))
    for name, module, inputs in (("unet", Unet, unet), ("decoder", Decoder, (torch.randn(1, 4, LATENT, LATENT),))):
        shapes = [list(value.shape) for value in inputs]
        graph = openvino.convert_model(module().eval(), example_input=inputs, input=shapes)
        openvino.save_model(graph, folder / f"openvino/{name}.xml", compress_to_fp16=False)


def main():
    folder = Path(sys.argv[1])
    if not (folder / "openvino/decoder.xml").exists():
        convert(folder)
        return
    core, random = openvino.Core(), np.random.default_rng(0)
    latents = random.standard_normal((ROWS, 4, LATENT, LATENT), dtype=np.float32)
    text = random.standard_normal((ROWS, TOKENS, WIDTH), dtype=np.float32)
    unet = core.compile_model(folder / "openvino/unet.xml", "CPU", SETTINGS)
    step = seconds(lambda: unet([latents, np.array(500), text]))
    decoder = core.compile_model(folder / "openvino/decoder.xml", "CPU", SETTINGS)
    decode = seconds(lambda: decoder([latents[:1]]), repeats=1)
    tell(openvino.__version__.split("-")[0], step, decode, peak_mb())


if __name__ == "__main__":
    main()
