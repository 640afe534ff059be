"""The layers in the form that suits ONNX Runtime's CPU kernels: float32, images as [batch, channels, height, width].

The operators were chosen by measurement (ONNX Runtime 1.32). FusedMatMul takes a weight in the checkpoint's layout, as fast as
MatMul and without a transposed copy. InstanceNormalization is the fastest core of a group norm. QuickGelu with alpha 1 is SiLU
in one pass. MultiHeadAttention never holds the full matrix of tokens by tokens.
"""
import numpy as np
from onnx import TensorProto

from builder import Graph


class CpuGraph(Graph):
    def __init__(self, name):
        super().__init__(name, TensorProto.FLOAT)

    # ---- in and out

    def from_float(self, x):
        return x

    def to_float(self, x):
        return x

    def image_in(self, x):
        """[b, c, h, w] -> an image in the layout of these layers."""
        return x

    def image_out(self, x):
        """An image -> [b, c, h, w]."""
        return x

    # ---- images

    def conv(self, x, name, c_in, c_out, kernel=3, stride=1, pads=None, plus=None):
        """`plus` is an image to add, in the shape of the result."""
        weight = self.parameter(f"{name}.weight", [c_out, c_in, kernel, kernel])
        bias = self.parameter(f"{name}.bias", [c_out])
        pads = pads or [kernel // 2] * 4
        y = self.op("Conv", x, weight, bias, kernel_shape=[kernel, kernel], strides=[stride, stride], pads=pads)
        return self.op("Add", y, plus) if plus else y

    def conv_relu(self, x, name, c_in, c_out, plus=None, relu=True, bias=True):
        """A 3×3 convolution, plus the image `plus`, then ReLU. In a stack of these, see `blocks_in`."""
        inputs = [x, self.parameter(f"{name}.weight", [c_out, c_in, 3, 3])]
        if bias:
            inputs.append(self.parameter(f"{name}.bias", [c_out]))
        y = self.op("Conv", *inputs, kernel_shape=[3, 3], pads=[1] * 4)
        y = self.op("Add", y, plus) if plus else y
        return self.op("Relu", y) if relu else y

    def blocks_in(self, x):
        """An image -> the layout in which the convolutions of a stack have it."""
        return x

    def blocks_out(self, x, channels):
        """The way back."""
        return x

    def double(self, x):
        """Nearest-neighbour upsampling to twice the size, within a stack."""
        return self.upsample(x)

    def conv_add_time(self, x, name, c_in, c_out, time, norm, groups, epsilon):
        """Convolution, plus the time embedding [b, c_out], then group norm and SiLU."""
        y = self.op("Add", self.conv(x, name, c_in, c_out), self.op("Unsqueeze", time, self.ints(2, 3)))
        return self.group_norm(y, norm, c_out, groups, epsilon, silu=True)

    def group_norm(self, x, name, channels, groups, epsilon, silu=False):
        one, zero = (self.constant(np.full(groups, v, np.float32)) for v in (1, 0))
        grouped = self.op("Reshape", x, self.ints(0, groups, -1))
        y = self.op("InstanceNormalization", grouped, one, zero, epsilon=epsilon)
        y = self.op("Reshape", y, self.op("Shape", x))
        y = self.op("Mul", y, self.per_channel(f"{name}.weight", channels))
        y = self.op("Add", y, self.per_channel(f"{name}.bias", channels))
        return self.silu(y) if silu else y

    def per_channel(self, name, channels):
        """A parameter [channels] as [channels, 1, 1]."""
        return self.op("Reshape", self.parameter(name, [channels]), self.ints(channels, 1, 1))

    def concat_channels(self, a, b):
        return self.op("Concat", a, b, axis=1)

    def upsample(self, x, like=None):
        """Nearest-neighbour upsampling to twice the size, or to the height and width of `like`."""
        how = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        if like is None:
            return self.op("Resize", x, None, self.constant(np.array([1, 1, 2, 2], np.float32)), **how)
        return self.op("Resize", x, None, None, self.op("Shape", like, start=2), axes=[2, 3], **how)

    def to_tokens(self, x, channels):
        """[b, c, h, w] -> [b, h × w, c]"""
        return self.op("Transpose", self.op("Reshape", x, self.ints(0, channels, -1)), perm=[0, 2, 1])

    def to_image(self, x, like):
        """[b, h × w, c] -> [b, c, h, w], the shape of `like`."""
        return self.op("Reshape", self.op("Transpose", x, perm=[0, 2, 1]), self.op("Shape", like))

    # ---- tokens

    def linear(self, x, name, c_in, c_out, bias=True, plus=None):
        """[…, c_in] -> […, c_out]; `plus` is a value to add, in the shape of the result."""
        y = self.microsoft("FusedMatMul", x, self.parameter(f"{name}.weight", [c_out, c_in]), transB=1)
        if bias:
            y = self.op("Add", y, self.parameter(f"{name}.bias", [c_out]))
        return self.op("Add", y, plus) if plus else y

    def layer_norm(self, x, name, channels, epsilon=1e-5):
        weight, bias = (self.parameter(f"{name}.{p}", [channels]) for p in ("weight", "bias"))
        return self.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=epsilon)

    def linear_add_and_norm(self, x, skip, name, norm, channels, epsilon=1e-5):
        """(a linear layer of x plus skip, and the layer norm of that)"""
        y = self.linear(x, name, channels, channels, bias=False)
        return self.add_and_norm(y, skip, f"{name}.bias", norm, channels, epsilon)

    def add_and_norm(self, x, skip, bias, name, channels, epsilon=1e-5):
        """(x + bias + skip, and its layer norm); `bias` is the name of a parameter."""
        weight, shift = (self.parameter(f"{name}.{p}", [channels]) for p in ("weight", "bias"))
        parameters = weight, shift, self.parameter(bias, [channels])
        normed, _, _, total = self.microsoft("SkipLayerNormalization", x, skip, *parameters, outputs=4, epsilon=epsilon)
        self.nodes[-1].output[1] = self.nodes[-1].output[2] = ""  # statistics for training, not needed
        return total, normed

    def attention(self, q, k, v, heads, channels, causal=False):
        """[b, n, channels], [b, m, channels], [b, m, channels] -> [b, n, channels]"""
        only = {"unidirectional": 1} if causal else {}
        return self.microsoft("MultiHeadAttention", q, k, v, num_heads=heads, **only)

    def geglu(self, x, name, channels, inner):
        """[b, n, channels] -> [b, n, inner]: one half of a projection times the exact GELU of the other."""
        value, gate = self.op("Split", self.linear(x, name, channels, 2 * inner), outputs=2, axis=-1, num_outputs=2)
        return self.op("Mul", value, self.op("Gelu", gate))

    def silu(self, x):
        """x × sigmoid(x)"""
        return self.microsoft("QuickGelu", x, alpha=1.0)

    def quick_gelu(self, x):
        """x × sigmoid(1.702 x), CLIP's"""
        return self.microsoft("QuickGelu", x, alpha=1.702)
