"""Writes pipelines/masked_area.json and its PNGs: diffusers' inpaint pipeline with padding_mask_crop.

    python tests/golden/masked_area.py          # needs the same packages as pipelines.py

That is A1111's "Only masked": the mask's surroundings are cut out, drawn at full size and laid back into the picture. The
cases are both kinds of UNet; the one that takes the mask is that of inpainting.py.
"""
import json, os
import numpy as np, torch
from PIL import Image
import inpainting as I
import pipelines as P

PICTURE = (200, 150)


def mask(box):
    white = np.zeros((PICTURE[1], PICTURE[0]), np.uint8)
    white[box[1]:box[3], box[0]:box[2]] = 255
    return Image.fromarray(white)


def main():
    cases = []
    # The last region is wider than the picture allows for its shape, so that it gets a rim.
    for kind, name, strength, size, box, padding in (
        ("inpaint", "DDIM", 0.6, (96, 64), (120, 30, 170, 60), 16), ("inpaint", "EULER-A", 1.0, (64, 64), (0, 90, 40, 150), 32),
        ("unet9", "DDIM", 1.0, (96, 64), (60, 50, 100, 110), 8), ("inpaint", "EULER-D", 0.6, (64, 128), (10, 20, 190, 130), 4),
    ):
        pipeline = I.pipeline if kind == "unet9" else I.made["inpaint"]
        pipeline.scheduler = P.SCHEDULERS[name].from_config(I.base)
        file = f"masked-area-{len(cases)}.png"
        pipeline(prompt=P.PROMPT, negative_prompt=P.NEGATIVE, image=P.start_picture(*PICTURE), mask_image=mask(box), width=size[0], height=size[1],
                 strength=strength, num_inference_steps=I.STEPS, guidance_scale=2.0, padding_mask_crop=padding,
                 generator=[torch.Generator().manual_seed(11)]).images[0].save(os.path.join(P.OUT, file), optimize=True)
        cases.append(dict(kind=kind, scheduler=name, strength=strength, size=size, box=box, padding=padding, steps=I.STEPS, seed=11,
                          guidance_scale=2.0, png=file))
    head = dict(prompt=P.PROMPT, negative_prompt=P.NEGATIVE, picture=PICTURE, cases=cases)
    with open(os.path.join(P.OUT, "masked_area.json"), "w") as file:
        file.write(json.dumps(head) + "\n")


if __name__ == "__main__":
    main()
