"""Writes interpolate.json: latents resized by torch's `interpolate` in each of A1111's latent upscale modes.

    pip install torch
    python tests/golden/interpolate.py
"""
import json, os, torch
from torch.nn.functional import interpolate

MODES = {
    "latent": ("bilinear", False),
    "latent-antialiased": ("bilinear", True),
    "latent-bicubic": ("bicubic", False),
    "latent-bicubic-antialiased": ("bicubic", True),
    "latent-nearest": ("nearest", False),
    "latent-nearest-exact": ("nearest-exact", False),
}

def main():
    torch.manual_seed(0)
    cases = []
    for name, (mode, antialias) in MODES.items():
        for start, to in (((8, 6), (16, 12)), ((8, 8), (11, 13)), ((9, 7), (5, 7)), ((5, 6), (17, 19))):
            latents = torch.randn(1, 1, *start)
            resized = interpolate(latents, size=to, mode=mode, antialias=antialias)
            flat = lambda tensor: [round(value, 7) for value in tensor.flatten().tolist()]
            cases.append({"mode": name, "from": start, "to": to, "latents": flat(latents), "resized": flat(resized)})
    json.dump(cases, open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "interpolate.json"), "w"))


if __name__ == "__main__":
    main()
