"""Writes pipelines/pix2pix.json: diffusers' InstructPix2Pix pipeline with a UNet that takes the picture to change as input.

    python tests/golden/pix2pix.py             # needs the same packages as pipelines.py

The UNet is the built-in model's, with four more channels in its first convolution. Their weights are a formula, which the test
computes again.
"""
import json, os
import numpy as np, torch
from diffusers import StableDiffusionInstructPix2PixPipeline, UNet2DConditionModel
import pipelines as P

SIZE, STEPS = (96, 64), 7


def image_channels(outputs):
    """[outputs, 4, 3, 3]: numbers that look random, rounded to half precision as the file has them."""
    n = np.arange(outputs * 4 * 9, dtype=np.int64)
    return torch.from_numpy(((n * 7919 % 1009 / 1009 - 0.5) * 0.2).astype(np.float16).astype(np.float32).reshape(outputs, 4, 3, 3))


def unet():
    usual = UNet2DConditionModel.from_pretrained(os.path.join(P.MODEL, "unet"), variant="fp16", torch_dtype=torch.float32)
    made = UNet2DConditionModel.from_config({**usual.config, "in_channels": 8})
    state = usual.state_dict()
    kernel = state["conv_in.weight"]
    made.load_state_dict({**state, "conv_in.weight": torch.cat([kernel, image_channels(kernel.shape[0])], 1)})
    return made.eval().requires_grad_(False)


def main():
    made, base = P.pipelines()
    parts = {name: part for name, part in made["text"].components.items() if name != "unet"}
    pipeline = StableDiffusionInstructPix2PixPipeline(**parts, unet=unet(), requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    cases = []
    # The last two have no guidance: by the one scale, and by the other.
    for name, guidance_scale, image_guidance_scale in (("DDIM", 4.0, 1.5), ("EULER-A", 3.0, 1.0), ("K-LMS", 2.0, 2.0),
                                                       ("DPM-M", 7.5, 1.2), ("DDIM", 1.0, 1.5), ("EULER-D", 3.0, 0.8)):
        pipeline.scheduler = P.SCHEDULERS[name].from_config(base)
        latents = pipeline(prompt=P.PROMPT, negative_prompt=P.NEGATIVE, image=P.start_picture(*SIZE), num_inference_steps=STEPS,
                           guidance_scale=guidance_scale, image_guidance_scale=image_guidance_scale,
                           generator=[torch.Generator().manual_seed(5)], output_type="latent").images
        cases.append(dict(scheduler=name, width=SIZE[0], height=SIZE[1], steps=STEPS, seed=5, guidance_scale=guidance_scale,
                          image_guidance_scale=image_guidance_scale, latents=[float(value) for value in latents.flatten()]))
        print(name, guidance_scale, image_guidance_scale, float(latents.std()))
    with open(os.path.join(P.OUT, "pix2pix.json"), "w") as file:
        json.dump(dict(prompt=P.PROMPT, negative_prompt=P.NEGATIVE, cases=cases), file)


if __name__ == "__main__":
    main()
