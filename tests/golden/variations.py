"""Writes variations.json: the first noise of A1111's variations, by their rule, with torch on a CPU.

    pip install torch
    python tests/golden/variations.py

- subseed: noise of the subseed is blended in by spherical interpolation. A1111 treats each column of latents as a vector.
- from: the noise is drawn for another size (height and width in latents) and laid into the middle of the picture's noise,
  which its own generator drew.

"next" is what the picture's generator draws afterwards.
"""
import json, os
import torch

HERE = os.path.dirname(os.path.abspath(__file__))


def randn(seed, shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def blend(share, low, high):
    def unit(noise):
        return noise / torch.norm(noise, dim=1, keepdim=True)

    cosine = (unit(low) * unit(high)).sum(1)
    if cosine.mean() > 0.9995:
        return low * share + high * (1 - share)
    angle = torch.acos(cosine)
    weights = [(torch.sin(part * angle) / torch.sin(angle)).unsqueeze(1) for part in (1.0 - share, share)]
    return weights[0] * low + weights[1] * high


def first(generator, seed, size, subseed, strength, smaller):
    whole = (4, *size)
    shape = (4, *(smaller or size))
    noise = randn(seed, shape)
    own = torch.randn(whole, generator=generator)
    if subseed is not None:
        noise = blend(strength, noise, randn(subseed, shape))
    if shape == whole:
        return noise
    # The offset is rounded down, also where the noise is larger than the picture and the offset negative.
    (dy, dx) = ((whole[axis] - shape[axis]) // 2 for axis in (1, 2))
    height, width = shape[1] + min(2 * dy, 0), shape[2] + min(2 * dx, 0)
    to_y, to_x, from_y, from_x = max(dy, 0), max(dx, 0), max(-dy, 0), max(-dx, 0)
    own[:, to_y:to_y + height, to_x:to_x + width] = noise[:, from_y:from_y + height, from_x:from_x + width]
    return own


CASES = [
    (1, (8, 6), 2, 0.1, None), (1, (8, 6), 2, 0.5, None), (7, (6, 8), 2**64 - 1, 1.0, None), (3, (8, 8), 3, 0.3, None),
    (4, (8, 12), None, 0, (8, 8)), (4, (9, 12), None, 0, (6, 7)), (4, (6, 6), None, 0, (9, 8)), (5, (7, 9), None, 0, (12, 5)),
    (6, (8, 12), 11, 0.25, (8, 8)), (6, (5, 5), 11, 0.75, (8, 8)),
]

if __name__ == "__main__":
    cases = []
    for seed, size, subseed, strength, smaller in CASES:
        generator = torch.Generator().manual_seed(seed)
        noise = first(generator, seed, size, subseed, strength, smaller)
        after = torch.randn((4, *size), generator=generator)
        rounded = [[float(f"{value:.7g}") for value in values.flatten().tolist()] for values in (noise, after)]
        cases.append({"seed": seed, "size": size, "subseed": subseed, "strength": strength, "from": smaller,
                      "first": rounded[0], "next": rounded[1]})
    with open(os.path.join(HERE, "variations.json"), "w") as file:
        file.write("[\n" + ",\n".join(map(json.dumps, cases)) + "\n]\n")
