"""Writes inpainting_pixels.json: what diffusers and Pillow make of pictures before and after inpainting.

    pip install diffusers==0.42.1 torch pillow numpy
    python tests/golden/inpainting_pixels.py

- fit: VaeImageProcessor's resize_mode "crop" and "fill", which are A1111's resize modes 1 and 2.
- regions: VaeImageProcessor.get_crop_region, which is A1111's "Only masked": the box of the mask, padded, and grown to the
  shape of what is drawn.
- surroundings: A1111's "fill" by its rule, with Pillow. The kept pixels are blurred by 256, 64, 16, 4, 2 and 0 pixels, and
  laid over each other 1, 1, 2, 4, 2 and 1 times.
"""
import json, os, random
import numpy as np
from diffusers.image_processor import VaeImageProcessor
from PIL import Image, ImageFilter

HERE = os.path.dirname(os.path.abspath(__file__))
BLURS = {256: 1, 64: 1, 16: 2, 4: 4, 2: 2, 0: 1}
processor = VaeImageProcessor()


def picture(width, height):
    """Waves with hard edges and some grain."""
    state, values = 1, []
    for y in range(height):
        for x in range(width):
            for channel in range(3):
                state = (state * 1664525 + 1013904223) % 2**32
                values.append((200 if (x // 16 + y // 24 + channel) % 2 == 0 else 20) + (state >> 27))
    return Image.fromarray(np.array(values, np.uint8).reshape(height, width, 3))


def mask(size, box):
    white = np.zeros((size[1], size[0]), np.uint8)
    white[box[1]:box[3], box[0]:box[2]] = 255
    return Image.fromarray(white)


def fits():
    for mode in ("crop", "fill"):
        for start, end in [((40, 30), (32, 32)), ((30, 40), (48, 32)), ((50, 20), (16, 40)), ((24, 24), (64, 40)), ((64, 64), (32, 32))]:
            fitted = processor.resize(picture(*start), height=end[1], width=end[0], resize_mode=mode)
            yield {"mode": mode, "from": start, "to": end, "pixels": fitted.convert("RGB").tobytes().hex()}


def regions():
    draw = random.Random(12)
    for case in range(150):
        size = (draw.randrange(20, 160), draw.randrange(20, 160))
        left, top = draw.randrange(size[0] - 1), draw.randrange(size[1] - 1)
        box = (left, top, draw.randrange(left + 1, size[0] + 1), draw.randrange(top + 1, size[1] + 1))
        drawn_at, padding = draw.choice([(64, 64), (96, 64), (64, 128), (512, 384)]), draw.choice([0, 4, 32])
        region = processor.get_crop_region(mask(size, box), *drawn_at, pad=padding)
        yield {"picture": size, "mask": box, "drawn_at": drawn_at, "padding": [padding], "region": [int(v) for v in region]}


def surroundings():
    for size, box in [((48, 40), (10, 8, 40, 30)), ((33, 17), (0, 0, 16, 17)), ((20, 60), (0, 20, 20, 40))]:
        image = picture(*size).convert("RGBA")
        kept = Image.new("RGBa", size)
        kept.paste(image.convert("RGBa"), mask=Image.fromarray(255 - np.array(mask(size, box))))
        filled = Image.new("RGBA", size)
        for radius, repeats in BLURS.items():
            blurred = kept.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
            for _ in range(repeats):
                filled.alpha_composite(blurred)
        yield {"size": size, "mask": box, "pixels": filled.convert("RGB").tobytes().hex()}


if __name__ == "__main__":
    golden = {"fit": list(fits()), "regions": list(regions()), "surroundings": list(surroundings())}
    with open(os.path.join(HERE, "inpainting_pixels.json"), "w") as file:
        lines = [json.dumps(name) + ": [\n" + ",\n".join(map(json.dumps, cases)) + "\n]" for name, cases in golden.items()]
        file.write("{\n" + ",\n".join(lines) + "\n}\n")
