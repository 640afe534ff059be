"""Measures torch with diffusers' networks, as its users run it on a CPU: python torch_peer.py MODEL"""
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from figures import ROWS, SIDE, THREADS, TOKENS, WIDTH, peak_mb, seconds, tell


def main():
    torch.set_num_threads(THREADS)
    folder = Path(sys.argv[1]) / "diffusers"
    common = {"variant": "fp16", "torch_dtype": torch.float32, "local_files_only": True}
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", **common).to(memory_format=torch.channels_last)
    vae = AutoencoderKL.from_pretrained(folder / "vae", **common).to(memory_format=torch.channels_last)
    latents, text = torch.randn(ROWS, 4, SIDE // 8, SIDE // 8), torch.randn(ROWS, TOKENS, WIDTH)
    with torch.inference_mode():
        step = seconds(lambda: unet(latents, torch.tensor(500), text))
        decode = seconds(lambda: vae.decode(latents[:1]), repeats=1)
    tell(torch.__version__, step, decode, peak_mb())


if __name__ == "__main__":
    main()
