"""Writes image.json: bytes that diffusers and numpy compute from floats, and pictures that Pillow enlarges.

    pip install numpy pillow
    python tests/golden/image.py
"""
import json, os
import numpy as np
from PIL import Image

rng = np.random.default_rng(1)
# every k + ½ and its neighbours, where rounding is decided, and other values
half = ((np.arange(256, dtype=np.float64) + 0.5) / 255 * 2 - 1).astype(np.float32)
values = np.concatenate([half, np.nextafter(half, np.float32(9)), np.nextafter(half, np.float32(-9)),
                         rng.normal(0, 0.7, 500).astype(np.float32), np.array([-1, 1, 0, -0.0, -7, 7, 1e38, -1e38, 1e-40, 0.5], np.float32)])
values = values[: len(values) // 3 * 3]
# diffusers image_processor.py: denormalize, pt_to_numpy, numpy_to_pil
as_bytes = ((values * np.float32(0.5) + np.float32(0.5)).clip(0, 1) * 255).round().astype("uint8")

lanczos = []
for size, to in (((12, 8), (40, 27)), ((8, 8), (32, 32)), ((5, 9), (5, 21)), ((16, 12), (16, 12)), ((2, 2), (17, 9))):
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    pixels[: size[1] // 2, : size[0] // 2] = 255  # a hard edge, where the filter over- and undershoots
    resized = Image.fromarray(pixels).resize(to, Image.Resampling.LANCZOS)
    lanczos.append({"from": size, "to": to, "pixels": pixels.tobytes().hex(), "resized": resized.tobytes().hex()})
json.dump({"bits": values.view(np.uint32).tolist(), "bytes": as_bytes.tobytes().hex(), "lanczos": lanczos},
          open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "image.json"), "w"))
