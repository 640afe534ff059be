"""Writes a model of Stable Diffusion v1.5's sizes with random weights: OUT/ldm.safetensors and OUT/diffusers/.

    python model.py OUT
"""
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tests/golden"))
import make_sd15


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    make_sd15.quietly()
    sizes = make_sd15.MODELS / "graphs/sd-v1"
    pipe = make_sd15.random_pipeline(sizes)
    make_sd15.save_diffusers(pipe, out, False, sizes / "scheduler/scheduler_config.json")
    make_sd15.save_ldm(make_sd15.ldm_state(pipe), out / "ldm.safetensors", torch.float16)


if __name__ == "__main__":
    main()
