"""Draws the pictures of these pages again, with the built-in model: samplers, prompts, variations, inpainting, hires
and edges.

    python -m venv venv && venv/bin/pip install pillow
    venv/bin/python docs/pictures/draw.py target/release/stablehand [NAME…]

The text below each picture on its page states the prompts, seeds and steps: change both together. page.png is a screenshot,
a1111.png shows interrupted requests, and controlnet.png what the preprocessors make: this script does not draw those.
"""

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parent
GAP = 8
INK = "#555"


class Studio:
    """Draws with the stablehand at `program`, into files of a temporary folder."""

    def __init__(self, program, folder):
        self.program, self.folder, self.count = program, folder, 0

    def file(self, picture=None):
        """A new file, with the picture in it if there is one."""
        self.count += 1
        path = self.folder / f"{self.count}.png"
        if picture:
            picture.save(path)
        return path

    def draw(self, prompt, **flags):
        return self.draw_all([(prompt, flags)])[0]

    def draw_all(self, wanted):
        """Pictures for pairs of a prompt and flags. A flag that is True has no value."""
        with ThreadPoolExecutor(2) as threads:
            return list(threads.map(lambda job: self._run(*job), [(p, f, self.file()) for p, f in wanted]))

    def _run(self, prompt, flags, path):
        command = [self.program, "generate", prompt, "-o", path]
        for name, value in flags.items():
            command.append(f"--{name.replace('_', '-')}")
            command += [] if value is True else [str(value)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return Image.open(path).convert("RGB")


def row(pictures):
    """Pictures side by side, each with a thin frame."""
    height = max(picture.height for picture in pictures) + 2
    whole = Image.new("RGB", (sum(picture.width + 2 + GAP for picture in pictures) - GAP, height), "white")
    left = 0
    for picture in pictures:
        whole.paste("#ccc", (left, 0, left + picture.width + 2, picture.height + 2))
        whole.paste(picture, (left + 1, 1))
        left += picture.width + 2 + GAP
    return whole


def column(pictures):
    """Pictures one below the other."""
    width, height = max(picture.width for picture in pictures), sum(picture.height + GAP for picture in pictures) - GAP
    whole, top = Image.new("RGB", (width, height), "white"), 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height + GAP
    return whole


def samplers(studio):
    """A row for each scheduler, a column for each number of steps."""
    names = ["EULER-D", "EULER-A", "DDIM", "DPM-M", "DPM++ 2M Karras", "K-LMS", "PNDM"]
    steps, side, label, head = [4, 8, 12, 20, 30], 80, 130, 22
    wanted = [("a panda", {"seed": 3, "steps": n, "scheduler": name}) for name in names for n in steps]
    drawn = studio.draw_all(wanted)
    whole = Image.new("RGB", (label + len(steps) * (side + GAP), head + len(names) * (side + GAP)), "white")
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(13)
    for x, n in enumerate(steps):
        pen.text((label + x * (side + GAP) + side / 2, head / 2), f"{n} steps", INK, font, anchor="mm")
    for y, name in enumerate(names):
        top = head + y * (side + GAP)
        pen.text((label - 10, top + side / 2), name, INK, font, anchor="rm")
        for x in range(len(steps)):
            picture = drawn[y * len(steps) + x].resize((side, side), Image.Resampling.LANCZOS)
            whole.paste(picture, (label + x * (side + GAP), top))
    return whole


def prompts(studio):
    texts = ["a red heart", "a [red:blue:0.6] heart", "a [red|blue] heart", "a house AND a tree", "a cat AND a dog"]
    return row(studio.draw_all([(text, {"seed": 7, "steps": 30}) for text in texts]))


def variations(studio):
    """A seed, more and more of another one, and a tile beside itself."""
    strengths = [0, 0.2, 0.4, 0.6, 1]
    face = {"seed": 2, "steps": 30, "guidance_scale": 1.2}
    near = [face | ({"subseed": 6, "subseed_strength": strength} if strength else {}) for strength in strengths]
    faces = row(studio.draw_all([("a face", flags) for flags in near]))
    tile = studio.draw("a rainbow", seed=4, steps=30, tiling=True)
    copies = Image.new("RGB", (tile.width * 4, tile.height * 2))
    for x in range(4):
        for y in range(2):
            copies.paste(tile, (x * tile.width, y * tile.height))
    return column([faces, row([tile, copies])])


def inpainting(studio):
    """A heart, a mask, a star in the masked area, and the result made wider."""
    heart = studio.draw("a red heart", seed=7, steps=30, width=192, height=192)
    mask = Image.new("RGB", heart.size)
    ImageDraw.Draw(mask).ellipse((112, 14, 182, 84), "white")
    star = studio.draw("a yellow star", seed=7, steps=30, init_image=studio.file(heart), mask=studio.file(mask),
                       inpaint_area="masked", inpaint_padding=0, prompt_strength=1)
    wider = studio.draw("a red heart", seed=7, steps=30, init_image=studio.file(star), outpaint="right=96",
                        inpaint_area="masked", prompt_strength=1)
    return row([heart, mask, star, wider])


def hires(studio):
    """Drawn small, and drawn again larger."""
    small = {"seed": 7, "steps": 30, "width": 96, "height": 96}
    pairs = [(prompt, small | more) for prompt in ["a house", "a panda"] for more in [{}, {"hires_width": 128}]]
    return row([picture.resize((144, 144), Image.Resampling.LANCZOS) for picture in studio.draw_all(pairs)])


def edges(studio):
    """A map of edges, and things without it and with it."""
    disc = Image.new("RGB", (128, 128))
    ImageDraw.Draw(disc).ellipse((14, 30, 74, 90), outline="white")
    star = Image.new("RGB", (128, 128))
    corners = [(64, 10), (78, 50), (118, 50), (86, 74), (98, 114), (64, 90), (30, 114), (42, 74), (10, 50), (50, 50)]
    ImageDraw.Draw(star).polygon(corners, outline="white")
    pictures = []
    for edges, things in [(disc, ["a red apple", "the moon"]), (star, ["a purple star"])]:
        follow = {"controlnet_dir": HERE.parent.parent / "models/tiny-sd/controlnets",
                  "controlnet": f"canny={studio.file(edges)}"}
        pictures.append(edges)
        pictures += studio.draw_all([(thing, {"seed": 2} | more) for thing in things for more in [{}, follow]])
    return row(pictures)


ALL = {maker.__name__: maker for maker in [samplers, prompts, variations, inpainting, hires, edges]}


def main():
    if len(sys.argv) < 2 or not set(sys.argv[2:]) <= ALL.keys():
        sys.exit(f"usage: draw.py PROGRAM [NAME…], where a name is one of {', '.join(ALL)}")
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio(Path(sys.argv[1]).resolve(), Path(folder))
        for name in sys.argv[2:] or ALL:
            path = HERE / f"{name}.png"
            # A palette is a third of the size, and looks the same.
            ALL[name](studio).quantize(256).save(path, optimize=True)
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
