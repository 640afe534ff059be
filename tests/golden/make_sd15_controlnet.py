"""Writes a ControlNet of Stable Diffusion v1's full size with random weights, and what diffusers draws with it.

    python make_sd15_controlnet.py OUT   # minutes, 4 GB; OUT as of make_sd15.py, whose diffusers folder is made if it is missing

    OUT/controlnets/random/              a diffusers folder, half precision
    OUT/golden/controlnet.json           a case: the latents after the last step, float32 on the CPU
"""
import argparse
import json
from pathlib import Path

import make_sd15
import numpy as np
import torch
from diffusers import ControlNetModel, DDIMScheduler, StableDiffusionControlNetPipeline
from pipelines import start_picture

SIZE, STEPS, GUIDANCE, SEED, WEIGHT = 256, 3, 4.0, 21, 0.8
PROMPT, NEGATIVE = "a photo of an astronaut riding a horse on mars", "blurry"


def random_controlnet(unet):
    """Weights drawn so that what it gives is about as large as what the UNet adds it to."""
    torch.manual_seed(1)
    controlnet = ControlNetModel.from_unet(unet)
    with torch.no_grad():
        for name, p in controlnet.named_parameters():
            if p.ndim > 1:
                p.normal_(std=float(np.prod(p.shape[1:])) ** -0.5)
            else:
                p.normal_(mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.1)
            p.copy_(p.half())
    return controlnet.eval().requires_grad_(False)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=Path)
    out = arguments.parse_args().out
    make_sd15.quietly()
    scheduler = make_sd15.MODELS / "graphs/sd-v1/scheduler/scheduler_config.json"
    if not (out / "diffusers").exists():
        out.mkdir(parents=True, exist_ok=True)
        make_sd15.save_diffusers(make_sd15.random_pipeline(make_sd15.MODELS / "graphs/sd-v1"), out, False, scheduler)
    base = make_sd15.trained_pipeline(out / "diffusers")
    controlnet = random_controlnet(base.unet)
    controlnet.half().save_pretrained(out / "controlnets/random")
    controlnet.float()

    parts = {name: part for name, part in base.components.items() if name != "image_encoder"}
    pipe = StableDiffusionControlNetPipeline(**parts, controlnet=controlnet, requires_safety_checker=False)
    pipe.scheduler = DDIMScheduler.from_config(base.scheduler.config)
    pipe.set_progress_bar_config(disable=True)

    def draw(weight):
        return pipe(prompt=PROMPT, negative_prompt=NEGATIVE, image=start_picture(SIZE, SIZE), width=SIZE, height=SIZE,
                    num_inference_steps=STEPS, guidance_scale=GUIDANCE, controlnet_conditioning_scale=weight,
                    generator=torch.Generator().manual_seed(SEED), output_type="latent").images

    with torch.no_grad():
        latents, silent = draw(WEIGHT), draw(0.0)
    print(f"differs from the picture without by {float((latents - silent).norm() / silent.norm()):.2f}")
    (out / "golden").mkdir(exist_ok=True)
    case = dict(prompt=PROMPT, negative_prompt=NEGATIVE, seed=SEED, size=SIZE, steps=STEPS, guidance_scale=GUIDANCE, weight=WEIGHT,
                latents=[float(value) for value in latents.flatten()])
    (out / "golden/controlnet.json").write_text(json.dumps(case) + "\n")


if __name__ == "__main__":
    main()
