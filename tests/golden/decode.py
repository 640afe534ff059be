"""Writes decode.json: picture files of many kinds, and the pixels that Pillow reads from them.

    pip install numpy pillow
    python tests/golden/decode.py

The pixels are those of `ImageOps.exif_transpose(image).convert("RGB")`, except for files with 16 bits a channel. There
Pillow's result depends on its version, so this script writes the upper eight bits.
"""
import base64, io, json, os, struct, zlib
import numpy as np
from PIL import Image, ImageOps

W, H = 13, 7
y, x = np.mgrid[0:H, 0:W]
red, green, blue = x * 255 // (W - 1), y * 255 // (H - 1), (x * 3 + y * 11) % 256
RGB = np.stack([red, green, blue], -1).astype(np.uint8)
ALPHA = ((x + y) * 255 // (W + H - 2)).astype(np.uint8)
rgb, rgba = Image.fromarray(RGB), Image.fromarray(np.dstack([RGB, ALPHA]))
grey, grey_alpha = rgb.convert("L"), rgba.convert("LA")
cases = []


def add(name, data, tolerance=0, pixels=None):
    if pixels is None:
        pixels = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    cases.append(dict(name=name, file=base64.b64encode(data).decode(), width=pixels.shape[1], height=pixels.shape[0],
                      pixels=pixels.tobytes().hex(), tolerance=tolerance))


def save(image, format, **options):
    data = io.BytesIO()
    image.save(data, format, **options)
    return data.getvalue()


def png16(values):
    """A PNG of 16 bits, which Pillow reads but does not write in colour."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def turned(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return exif


for name, image in (("grey", grey), ("grey and alpha", grey_alpha), ("colour", rgb), ("colour and alpha", rgba),
                    ("one bit", grey.convert("1")), ("palette", rgb.convert("P", palette=Image.Palette.ADAPTIVE, colors=16))):
    add("PNG, " + name, save(image, "PNG"))
add("PNG, palette with a transparent colour", save(rgb.quantize(8), "PNG", transparency=3))
add("PNG, interlaced and 1×1", save(rgb.crop((4, 4, 5, 5)), "PNG"))
wide = np.dstack([RGB, ALPHA]).astype(np.uint16) * 256 + np.arange(W, dtype=np.uint16)[None, :, None] * 19
for channels, kind in ((1, "grey"), (2, "grey and alpha"), (3, "colour"), (4, "colour and alpha")):
    values = wide[..., [0, 3]] if channels == 2 else wide[..., :channels]
    upper = (values >> 8).astype(np.uint8)
    add(f"PNG, 16 bits, {kind}", png16(values), pixels=upper[..., :3] if channels > 2 else np.repeat(upper[..., :1], 3, -1))
add("PNG, turned", save(rgb, "PNG", exif=turned(6)))
for orientation in range(1, 9):
    add(f"JPEG, orientation {orientation}", save(rgb, "JPEG", quality=98, subsampling=0, exif=turned(orientation)), 3)
add("JPEG, grey", save(grey, "JPEG", quality=98), 3)
add("JPEG, progressive", save(rgb, "JPEG", quality=98, subsampling=0, progressive=True), 3)
add("JPEG, CMYK", save(rgb.convert("CMYK"), "JPEG", quality=98), 6)
add("WebP, without loss", save(rgb, "WEBP", lossless=True))
add("WebP, with alpha", save(rgba, "WEBP", lossless=True, exact=True))
add("WebP, turned", save(rgb, "WEBP", lossless=True, exif=turned(8)))
add("WebP, animated", save(rgb, "WEBP", lossless=True, save_all=True, append_images=[ImageOps.invert(rgb), grey.convert("RGB")], duration=100))
add("WebP, with loss", save(rgb.resize((64, 40)), "WEBP", quality=95), 6)
add("JPEG, a video behind its end", save(rgb, "JPEG", quality=98, subsampling=0) + b"\0\0\0\x18ftypmp42\0\0\0\0isommp42\xff\xda\0\x0c", 3)
add("PNG, a text behind its end", save(rgb, "PNG") + b"<html>")
eight, sixteen = rgb.quantize(8), rgb.quantize(16)
add("GIF, palette", save(sixteen, "GIF"))
add("GIF, grey", save(grey, "GIF"))
add("GIF, a transparent colour", save(eight, "GIF", transparency=3))
add("GIF, interlaced", save(sixteen, "GIF", interlace=True))
add("GIF, animated", save(sixteen, "GIF", save_all=True, append_images=[eight, grey], duration=100))
add("GIF, an archive behind its end", save(sixteen, "GIF") + b"PK\x03\x04")
for name, image in (("grey", grey), ("colour", rgb), ("one bit", grey.convert("1")), ("palette", sixteen)):
    add("BMP, " + name, save(image, "BMP"))
# Pillow reads the fourth byte as alpha only where the header says that there is one.
add("BMP, colour and alpha", save(rgba, "BMP"))
for name, image in (("grey", grey), ("grey and alpha", grey_alpha), ("colour", rgb), ("colour and alpha", rgba), ("one bit", grey.convert("1"))):
    add("TIFF, " + name, save(image, "TIFF"))
for compression in ("packbits", "tiff_lzw", "tiff_adobe_deflate"):
    add("TIFF, " + compression, save(rgb, "TIFF", compression=compression))
add("TIFF, CMYK", save(rgb.convert("CMYK"), "TIFF"), 1)
grey16 = wide[..., 0]
add("TIFF, 16 bits, grey", save(Image.fromarray(grey16), "TIFF"), pixels=np.repeat((grey16 >> 8).astype(np.uint8)[..., None], 3, -1))
add("TIFF, palette", save(sixteen, "TIFF"))
add("TIFF, palette, turned", save(sixteen, "TIFF", exif=turned(8), compression="tiff_lzw"))
add("TIFF, turned", save(rgb, "TIFF", exif=turned(6)))
add("TIFF, several pages", save(rgb, "TIFF", save_all=True, append_images=[ImageOps.invert(rgb)]))
json.dump(cases, open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "decode.json"), "w"), indent=0, ensure_ascii=False)
