"""Writes canny.json: edges that OpenCV finds in pictures of discs, which `preprocess/canny.rs` draws in the same way.

    pip install opencv-python-headless numpy
    python canny.py
"""
import json
from pathlib import Path

import cv2
import numpy as np


def picture(width, height, seed):
    """Discs of colour, later ones over earlier ones."""
    image = np.full((height, width, 3), (30, 60, 90), np.uint8)
    y, x = np.mgrid[:height, :width]
    for i in range(1, 7):
        cx, cy = ((i - 1) * 37 + seed) % width, ((i - 1) * 53 + seed * 3) % height
        image[(x - cx) ** 2 + (y - cy) ** 2 < (5 + 3 * i) ** 2] = [i * step % 256 for step in (40, 25, 70)]
    return image


cases = []
for width, height, seed in ((64, 48, 1), (40, 64, 9), (3, 5, 2)):
    maps = []
    for low, high in ((100, 200), (20, 60), (200, 250)):
        edges = cv2.Canny(picture(width, height, seed), low, high)
        maps.append([low, high, "\n".join("".join("#" if value else "." for value in row) for row in edges)])
    cases.append({"width": width, "height": height, "seed": seed, "maps": maps})
Path(__file__).with_suffix(".json").write_text(json.dumps(cases, indent=1) + "\n")
