"""Writes noise_golden.json: torch.randn, computed in NumPy by a script that was compared with torch bit by bit.

    python noise_golden.py DIRECTORY-OF-torch_randn.py

`torch_randn.py` is the project's reference script (0 differing bits from torch 2.15.0 under AVX2 and AVX-512).
For each draw it writes the bits of the first and last four values, and a SHA-256 of all of them, little-endian.
"""
import hashlib, json, pathlib, sys

sys.path.insert(0, sys.argv[1])
import numpy as np
from torch_randn import MT19937, randn

SEEDS = (0, 1, 42, 1234567890, 2**32 + 5, 2**64 - 1)
SIZES = (4, 15, 16, 17, 31, 33, 16384, 49157)


def draw(generator, n):
    b = randn(generator, n, "avx2").view(np.uint32)
    return {"n": n, "first": b[:4].tolist(), "last": b[-4:].tolist(), "sha256": hashlib.sha256(b.astype("<u4").tobytes()).hexdigest()}


def run(seed, sizes):
    g = MT19937(seed)
    return {"seed": seed, "draws": [draw(g, n) for n in sizes]}


runs = [run(s, (n, n)) for s in SEEDS for n in SIZES]
runs.append(run(7, (3, 16, 1, 5, 20, 2)))  # the scalar path's cached value survives a long draw
path = pathlib.Path(__file__).with_name("noise_golden.json")
path.write_text(json.dumps({"runs": runs}, separators=(",", ":")).replace('{"seed"', '\n{"seed"') + "\n")
