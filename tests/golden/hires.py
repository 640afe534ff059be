"""Writes pipelines/hires.json: two passes as diffusers' pipelines draw them with the built-in model.

    pip install diffusers==0.42.1 transformers torch onnxruntime==1.32.0 pillow numpy scipy
    python tests/golden/hires.py

StableDiffusionPipeline draws latents. They are enlarged: by torch's `interpolate`, or decoded, resized by Pillow and encoded
(the mean of the posterior). StableDiffusionImg2ImgPipeline goes on from them, with new generators of the same seeds. See
pipelines.py for the networks.
"""
import json, os
import numpy as np, torch
from PIL import Image
from torch.nn.functional import interpolate
import pipelines as P
from interpolate import MODES

SEEDS = (11, 12)
CASES = [
    dict(scheduler="EULER-D", upscaler="latent", scale=2.0, steps=12, strength=0.75),
    dict(scheduler="EULER-A", upscaler="latent-nearest-exact", scale=1.5, steps=10, strength=0.6),
    dict(scheduler="DDIM", upscaler="lanczos", scale=2.0, steps=10, strength=0.5),
    dict(scheduler="DPM-M", upscaler="latent-bicubic-antialiased", scale=1.5, steps=10, strength=0.7, hires_steps=7),
    dict(scheduler="HEUN", upscaler="latent-antialiased", scale=2.0, steps=8, strength=0.5),
    dict(scheduler="EULER-D", upscaler="nearest", scale=2.0, steps=8, strength=0.0),
    dict(scheduler="DPM-M", upscaler="latent", scale=2.0, steps=8, strength=1.0, hires_scheduler="EULER-D",
         hires_prompt="a green tree on a white background", hires_guidance_scale=3.0),
]
# The reference graphs take multiples of 32 pixels.
WIDTH, HEIGHT, GUIDANCE = 64, 128, 1.5
# Of the latents, every STEP-th value is written.
STEP = 5


def enlarged(pipeline, latents, case, size):
    width, height = size
    if case["upscaler"] in MODES:
        mode, antialias = MODES[case["upscaler"]]
        return interpolate(latents, size=(height // 8, width // 8), mode=mode, antialias=antialias)
    scaling = pipeline.vae.config.scaling_factor
    filters = {"lanczos": Image.LANCZOS, "nearest": Image.NEAREST}
    encoded = []
    for one in latents.split(1):
        picture = pipeline.image_processor.postprocess(pipeline.vae.decode(one / scaling)[0], output_type="pil")[0]
        pixels = np.asarray(picture.resize(size, filters[case["upscaler"]])).astype(np.float32) / 255 * 2 - 1
        pixels = torch.from_numpy(pixels.transpose(2, 0, 1)[None])
        encoded.append(pipeline.vae.encode(pixels).latent_dist.mode() * scaling)
    return torch.cat(encoded)


def main():
    made, base = P.pipelines()
    generators = lambda: [torch.Generator().manual_seed(seed) for seed in SEEDS]
    cases = []
    for case in CASES:
        common = dict(negative_prompt=[P.NEGATIVE] * len(SEEDS), output_type="latent")
        first, second = made["text"], made["image"]
        first.scheduler = P.SCHEDULERS[case["scheduler"]].from_config(base)
        latents = first(prompt=[P.PROMPT] * len(SEEDS), width=WIDTH, height=HEIGHT, num_inference_steps=case["steps"],
                        guidance_scale=GUIDANCE, generator=generators(), **common).images
        size = tuple(int(side * case["scale"]) // 8 * 8 for side in (WIDTH, HEIGHT))
        latents = enlarged(first, latents, case, size)
        if case["strength"] > 0:
            second.scheduler = P.SCHEDULERS[case.get("hires_scheduler", case["scheduler"])].from_config(base)
            latents = second(prompt=[case.get("hires_prompt", P.PROMPT)] * len(SEEDS), image=latents,
                             strength=case["strength"], num_inference_steps=case.get("hires_steps", case["steps"]),
                             guidance_scale=case.get("hires_guidance_scale", GUIDANCE), generator=generators(),
                             **common).images
        flat = [round(value, 5) for value in latents.flatten()[::STEP].tolist()]
        cases.append(dict(case, width=WIDTH, height=HEIGHT, size=size, latents=flat))
        print(case["upscaler"], tuple(latents.shape), flush=True)
    head = dict(prompt=P.PROMPT, negative_prompt=P.NEGATIVE, guidance_scale=GUIDANCE, seed=SEEDS[0], cases=cases)
    json.dump(head, open(os.path.join(P.OUT, "hires.json"), "w"))


if __name__ == "__main__":
    main()
