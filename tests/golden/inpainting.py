"""Writes pipelines/inpainting.json: diffusers' inpaint pipeline with a UNet that takes the mask and the masked picture as input.

    python tests/golden/inpainting.py          # needs the same packages as pipelines.py

The UNet is the built-in model's with a 1×1 convolution before it, so that the extra input has an effect.
"""
import json, os
import torch
from diffusers.configuration_utils import FrozenDict
from PIL import Image
import pipelines as P

SIZE, STEPS = (96, 64), 7


class InpaintingUNet(P.UNet):
    def __init__(self):
        super().__init__()
        self.config = FrozenDict({**self.config, "in_channels": 9})

    def forward(self, sample, timestep, encoder_hidden_states, **_):
        heard = sample[:, :4] + 0.1 * sample[:, 4:5] + 0.2 * sample[:, 5:]
        return super().forward(heard, timestep, encoder_hidden_states)


made, base = P.pipelines()
pipeline = P.S.StableDiffusionInpaintPipeline(**{**made["inpaint"].components, "unet": InpaintingUNet()}, requires_safety_checker=False)
pipeline.set_progress_bar_config(disable=True)


def main():
    cases = []
    # From text alone everything is painted, as with a white mask.
    for mode, name, strength in (("inpaint", "DDIM", 1.0), ("inpaint", "EULER-A", 0.6), ("inpaint", "DDPM", 1.0), ("text", "EULER-A", 1.0)):
        pipeline.scheduler = P.SCHEDULERS[name].from_config(base)
        mask = P.start_mask(*SIZE) if mode == "inpaint" else Image.new("RGB", SIZE, "white")
        latents = pipeline(prompt=P.PROMPT, negative_prompt=P.NEGATIVE, image=P.start_picture(*SIZE), mask_image=mask, width=SIZE[0], height=SIZE[1],
                           strength=strength, num_inference_steps=STEPS, guidance_scale=2.0, generator=[torch.Generator().manual_seed(5)], output_type="latent").images
        cases.append(dict(mode=mode, scheduler=name, strength=strength, width=SIZE[0], height=SIZE[1], steps=STEPS, seed=5, guidance_scale=2.0,
                          latents=[float(value) for value in latents.flatten()]))
    json.dump(dict(prompt=P.PROMPT, negative_prompt=P.NEGATIVE, cases=cases), open(os.path.join(P.OUT, "inpainting.json"), "w"))


if __name__ == "__main__":
    main()
