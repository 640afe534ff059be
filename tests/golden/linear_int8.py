"""Writes linear_int8.json: a linear layer in int8, by numpy in whole numbers and float64.

    python linear_int8.py       needs numpy

Each output channel's weights, and each row of the input, are divided by a 127th of their largest value and rounded to the nearest whole number, ties to
even. The product of whole numbers is exact, and multiplied by both scales. `packed` is the weight as the operator reads it: blocks of 16 channels, each 16
scales in float32 and then bytes [inputs / 4][16][4], which are the whole numbers plus 128.
"""
import json, pathlib
import numpy as np

ROWS, INPUTS, OUTPUTS = 7, 20, 48


def quantized(rows):
    """[n, inputs] in float32 -> whole numbers, and the scales [n, 1] in float32."""
    largest = np.abs(rows).max(axis=1, keepdims=True).astype(np.float32)
    factor = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    return np.rint(rows * factor).astype(np.int64), largest / np.float32(127)


def packed(numbers, scales):
    blocks = []
    for first in range(0, OUTPUTS, 16):
        of_block = numbers[first:first + 16] + 128
        four_by_four = of_block.reshape(16, INPUTS // 4, 4).transpose(1, 0, 2).astype(np.uint8)
        blocks.append(scales[first:first + 16].astype("<f4").tobytes() + four_by_four.tobytes())
    return b"".join(blocks)


def main():
    random = np.random.default_rng(8)
    weight = (random.standard_normal((OUTPUTS, INPUTS)) * 0.1).astype(np.float32)
    weight[5] = 0
    rows = random.standard_normal((ROWS, INPUTS)).astype(np.float32)
    rows[2] *= 1000
    rows[4] = 0
    w, of_channels = quantized(weight)
    x, of_rows = quantized(rows)
    output = (x @ w.T) * of_rows.astype(np.float64) * of_channels.T.astype(np.float64)
    # The same layer in full precision, to show that the numbers above mean something.
    full = rows.astype(np.float64) @ weight.T.astype(np.float64)
    assert np.abs(output - full).max() < 0.02 * np.abs(full).max()
    numbers = lambda a: [float(v) for v in a.ravel()]
    golden = {"inputs": INPUTS, "outputs": OUTPUTS, "weight": numbers(weight), "packed": list(packed(w, of_channels)),
              "input": numbers(rows), "output": numbers(output)}
    pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
