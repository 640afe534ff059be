"""Writes philox_golden.json: torch.randn on CUDA, from a NumPy implementation that is independent of ours.

    python tests/golden/philox_golden.py

Philox4x32-10 after Salmon et al. 2011 (checked below against the known answers of its authors' Random123 library), the
counter as ATen/native/cuda/DistributionTemplates.h sets it, Box-Muller as cuRAND's curand_normal.h does it with f64 inside.
"""
import json, os
import numpy as np

M = [np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)]
LOW = np.uint64(0xFFFFFFFF)


def philox(counter, key):
    c = [np.asarray(word, np.uint64) for word in counter]
    k = [int(word) for word in key]
    for _ in range(10):
        p, q = c[0] * M[0], c[2] * M[1]
        c = [(q >> np.uint64(32)) ^ c[1] ^ np.uint64(k[0]), q & LOW, (p >> np.uint64(32)) ^ c[3] ^ np.uint64(k[1]), p & LOW]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


# kat_vectors of Random123: philox4x32 10
for counter, key, answer in [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0], [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
]:
    assert [int(word) for word in philox(counter, key)] == answer


def randn(seed, call, n):
    zeros = np.zeros(n, np.uint64)
    words = philox([zeros + np.uint64(call), zeros, np.arange(n, dtype=np.uint64), zeros], [seed % 2**32, seed >> 32])
    u = (words[0].astype(np.float64) + 0.5) * 2.0**-32
    v = (words[1].astype(np.float64) + 0.5) * 2.0**-32 * 2 * np.pi
    return words, (np.sqrt(-2 * np.log(u)) * np.sin(v))


# CUDA's numbers for seed 0 and shape (3, 4), according to A1111's modules/rng_philox.py.
DOCUMENTED = [-0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564, -0.62285122, -0.32838709, -1.07454231, -0.36314407,
              -1.67105067, 2.26550497]
assert np.abs(randn(0, 0, 12)[1] - DOCUMENTED).max() < 1e-6

runs = []
for seed in [0, 1, 42, 2**32 - 1, 2**32, 2**32 + 7, 2**63, 2**64 - 1]:
    for call, n in [(0, 12), (1, 12), (5, 3), (0, 49152)]:
        words, normals = randn(seed, call, n)
        kept = 12 if call == 0 else n
        runs.append(json.dumps({"seed": seed, "call": call, "n": n,
                                "words": [[int(word[t]) for word in words] for t in (0, n - 1)],
                                "first": [float(x) for x in normals[:kept]], "last": [float(x) for x in normals[-4:]] if n > 12 else [],
                                "sum_of_squares": float((normals ** 2).sum())}))
here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(here, "philox_golden.json"), "w") as file:
    file.write('{"documented": ' + json.dumps(DOCUMENTED) + ',\n"runs": [\n' + ",\n".join(runs) + "\n]}\n")
