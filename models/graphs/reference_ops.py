"""ONNX Runtime's own operators as its ContribOperators document defines them, for onnx.reference.

Each computes in float32 and rounds to the element type of its input at the end, as the CUDA kernels do. LayerNormalization, Softmax
and Resize are here too: onnx.reference rounds within the former and is slow at the latter.
"""
import numpy as np
import torch
import torch.nn.functional as F
from onnx.reference.op_run import OpRun


def wide(array):
    """As a float32 tensor."""
    return torch.from_numpy(np.asarray(array, np.float32))


def group_norm(x, gamma, beta, groups, epsilon, activation):
    """x [n, h, w, c] -> the same."""
    assert gamma.dtype == beta.dtype == np.float32, "the kernel takes float32 only"
    assert (x.shape[-1] // groups) % 2 == 0, "the kernel takes even groups only"
    y = F.group_norm(x.permute(0, 3, 1, 2), groups, wide(gamma), wide(beta), epsilon).permute(0, 2, 3, 1)
    return F.silu(y) if activation else y


class NhwcConv(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, w, b=None, kernel_shape=None, strides=None, pads=None, **_):
        assert pads[:2] == pads[2:] and list(w.shape[1:3]) == list(kernel_shape)
        y = F.conv2d(wide(x).permute(0, 3, 1, 2), wide(w).permute(0, 3, 1, 2), None if b is None else wide(b), strides, pads[:2])
        return (y.permute(0, 2, 3, 1).numpy().astype(x.dtype),)


class GroupNorm(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, gamma, beta, groups=None, epsilon=1e-5, activation=None, channels_last=1):
        return (group_norm(wide(x), gamma, beta, groups, epsilon, activation).numpy().astype(x.dtype),)


class SkipGroupNorm(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, gamma, beta, skip, bias=None, groups=None, epsilon=1e-5, activation=None, channels_last=1):
        skip = skip[:, None, None, :] if skip.ndim == 2 else skip
        total = x + (skip if bias is None else bias + skip)
        normed = group_norm(wide(total), gamma, beta, groups, epsilon, activation).numpy().astype(x.dtype)
        return (normed, total)[:len(self.onnx_node.output)]


class FusedMatMul(OpRun):
    op_domain = "com.microsoft"

    def _run(self, a, b, transA=0, transB=0, alpha=1.0, **_):
        assert not transA
        y = alpha * (wide(a) @ (wide(b).transpose(-1, -2) if transB else wide(b)))
        return (y.numpy().astype(a.dtype),)


class MultiHeadAttention(OpRun):
    op_domain = "com.microsoft"

    def _run(self, q, k, v, num_heads=None, unidirectional=0, **_):
        split = (wide(x).unflatten(2, (num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        y = F.scaled_dot_product_attention(*split, is_causal=bool(unidirectional))
        return (y.transpose(1, 2).flatten(2).numpy().astype(q.dtype),)


class BiasSplitGelu(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, bias):
        assert x.ndim == 3 and x.shape[2] in (2560, 5120, 10240)
        value, gate = (wide(x) + wide(bias)).chunk(2, -1)
        return ((value * F.gelu(gate)).numpy().astype(x.dtype),)


class BiasAdd(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, bias, skip):
        assert x.ndim == 3 and x.shape[2] in (320, 640, 1280) and x.shape == skip.shape
        return (x + bias + skip,)


class SkipLayerNormalization(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, skip, gamma, beta, bias, epsilon=1e-12):
        total = x + skip + bias
        normed = F.layer_norm(wide(total), gamma.shape, wide(gamma), wide(beta), epsilon).numpy().astype(x.dtype)
        nothing = np.zeros(0, np.float32)
        return normed, nothing, nothing, total


class QuickGelu(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, alpha=1.702):
        x32 = wide(x)
        return ((x32 * torch.sigmoid(alpha * x32)).numpy().astype(x.dtype),)


class Gelu(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, **_):  # onnx.reference hands it the attributes of ONNX's operator of this name
        return (F.gelu(wide(x)).numpy().astype(x.dtype),)


class LayerNormalization(OpRun):
    op_domain = ""

    def _run(self, x, gamma, beta, axis=-1, epsilon=1e-5, **_):
        assert axis == -1
        return (F.layer_norm(wide(x), gamma.shape, wide(gamma), wide(beta), epsilon).numpy().astype(x.dtype),)


class Softmax(OpRun):
    op_domain = ""

    def _run(self, x, axis=-1):
        return (wide(x).softmax(axis).numpy().astype(x.dtype),)


class Resize(OpRun):
    op_domain = ""

    def _run(self, x, roi=None, scales=None, sizes=None, axes=None, mode=None, nearest_mode=None,
             coordinate_transformation_mode=None, **_):
        assert (mode, nearest_mode, coordinate_transformation_mode) == ("nearest", "floor", "asymmetric")
        axes = range(x.ndim) if axes is None else axes
        sizes = [int(x.shape[a] * s) for a, s in zip(axes, scales)] if sizes is None else sizes
        for axis, size in zip(axes, sizes):
            x = np.take(x, np.arange(size) * x.shape[axis] // size, axis)
        return (x,)


OPERATORS = [
    NhwcConv, GroupNorm, SkipGroupNorm, FusedMatMul, MultiHeadAttention, BiasSplitGelu, BiasAdd, SkipLayerNormalization, QuickGelu, Gelu,
    LayerNormalization, Softmax, Resize,
]
