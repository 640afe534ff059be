"""Writes clip.json: tensors by transformers' CLIPImageProcessor (which resizes with Pillow), for pictures that
src/diffusion/image/clip.rs draws in the same way. Needs transformers, numpy and Pillow."""
import json, os, random
import numpy as np
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil


def picture(width, height):
    state, pixels = 1, np.zeros((height, width, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            for c in range(3):
                state = (state * 1664525 + 1013904223) % 2**32
                pixels[y, x, c] = (200 if (x // 16 + y // 24 + c) % 2 == 0 else 20) + (state >> 27)
    return Image.fromarray(pixels)


random.seed(0)
cases = []
for size in ((128, 128), (512, 512), (640, 448), (96, 300), (225, 224)):
    values = CLIPImageProcessorPil()(picture(*size), return_tensors="np")["pixel_values"][0]
    assert values.shape == (3, 224, 224)
    edges = [(0, 0), (0, 223), (223, 0), (223, 223)]
    places = edges + [(random.randrange(224), random.randrange(224)) for _ in range(60)]
    cases.append({"size": size, "samples": [[c, y, x, round(float(values[c, y, x]), 5)] for y, x in places for c in range(3)]})
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "clip.json"), "w") as file:
    json.dump(cases, file, separators=(",", ":"))
