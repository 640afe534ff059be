"""The layers as ONNX Runtime's CUDA kernels like them: float16, images as [batch, height, width, channels].

NhwcConv, GroupNorm, SkipGroupNorm, BiasSplitGelu and BiasAdd exist for CUDA alone: the CPU cannot run these graphs. Their
kernels' limits (onnxruntime/contrib_ops/cuda/diffusion, bert): a group of GroupNorm has an even number of channels, 512 at
most, and its scale and shift are float32; BiasSplitGelu takes widths of 2560, 5120 and 10240, BiasAdd of 320, 640 and 1280;
MultiHeadAttention hands heads wider than 256 to a kernel that some cards cannot start. Beyond them, plain operators.
"""
import numpy as np
from onnx import TensorProto, helper

from builder import Graph, MICROSOFT

BIAS_SPLIT_GELU_WIDTHS = (2560, 5120, 10240)
BIAS_ADD_WIDTHS = (320, 640, 1280)
WIDEST_GROUP = 512
WIDEST_HEAD = 256


class CudaGraph(Graph):
    """`element_type` is float32 in checks alone: the same graph without float16's rounding."""

    def __init__(self, name, element_type=TensorProto.FLOAT16):
        super().__init__(name, element_type)
        # Sums that nothing has asked for yet: value -> (x, bias, skip). A group norm that comes first makes the sum itself.
        self.pending = {}

    def op(self, kind, *inputs, **attributes):
        for value in inputs:
            self.settle(value)
        return super().op(kind, *inputs, **attributes)

    def settle(self, value):
        """Makes a pending sum by itself."""
        if value in self.pending:
            x, bias, skip = self.pending.pop(value)
            self.settle(skip)
            self.nodes.append(helper.make_node("Add", [self.op("Add", x, bias), skip], [value]))

    # ---- in and out

    def from_float(self, x):
        return self.op("Cast", x, to=self.element_type)

    def to_float(self, x):
        return self.op("Cast", x, to=TensorProto.FLOAT)

    def image_in(self, x):
        """[b, c, h, w] as given -> an image as the layers here have it."""
        return self.op("Transpose", self.from_float(x), perm=[0, 2, 3, 1])

    def image_out(self, x):
        """An image -> [b, c, h, w] float32."""
        return self.to_float(self.op("Transpose", x, perm=[0, 3, 1, 2]))

    # ---- images

    def conv(self, x, name, c_in, c_out, kernel=3, stride=1, pads=None, plus=None):
        """`plus` is an image of the result's shape to add."""
        bias = self.parameter(f"{name}.bias", [c_out])
        if plus is None:
            return self.bare_conv(x, name, c_in, c_out, kernel, stride, pads, bias)
        y = self.bare_conv(x, name, c_in, c_out, kernel, stride, pads)
        total = self.value()
        self.pending[total] = (y, bias, plus)
        return total

    def bare_conv(self, x, name, c_in, c_out, kernel=3, stride=1, pads=None, bias=None):
        """The convolution, with `bias` or without one."""
        weight = self.parameter(f"{name}.weight", [c_out, kernel, kernel, c_in], doc="OHWI")
        if pads:  # cuDNN pads both sides alike
            top, left, bottom, right = pads
            x = self.op("Pad", x, self.ints(0, top, left, 0, 0, bottom, right, 0))
            pads = [0] * 4
        pads = pads or [kernel // 2] * 4
        inputs = [x, weight, bias] if bias else [x, weight]
        return self.microsoft("NhwcConv", *inputs, kernel_shape=[kernel, kernel], strides=[stride, stride], pads=pads)

    def conv_relu(self, x, name, c_in, c_out, plus=None, relu=True, bias=True):
        """A 3×3 convolution, plus the image `plus`, then ReLU."""
        y = self.bare_conv(x, name, c_in, c_out, bias=self.parameter(f"{name}.bias", [c_out]) if bias else None)
        y = self.op("Add", y, plus) if plus else y
        return self.op("Relu", y) if relu else y

    def blocks_in(self, x):
        return x

    def blocks_out(self, x, channels):
        return x

    def double(self, x):
        return self.upsample(x)

    def conv_add_time(self, x, name, c_in, c_out, time, norm, groups, epsilon):
        """Convolution, plus the time embedding [b, c_out], then group norm and SiLU."""
        if self.has_group_norm(c_out, groups):
            y, bias = self.bare_conv(x, name, c_in, c_out), self.parameter(f"{name}.bias", [c_out])
            return self.skip_group_norm(y, time, bias, norm, c_out, groups, epsilon, silu=True)
        y = self.op("Add", self.conv(x, name, c_in, c_out), self.op("Unsqueeze", time, self.ints(1, 2)))
        return self.group_norm(y, norm, c_out, groups, epsilon, silu=True)

    def has_group_norm(self, channels, groups):
        """Whether the fused kernels take this shape."""
        per_group = channels // groups
        return per_group % 2 == 0 and per_group <= WIDEST_GROUP

    def scale_and_shift(self, name, channels):
        return [self.parameter(f"{name}.{p}", [channels], element_type=TensorProto.FLOAT) for p in ("weight", "bias")]

    def group_norm(self, x, name, channels, groups, epsilon, silu=False):
        if not self.has_group_norm(channels, groups):
            return self.plain_group_norm(x, name, channels, groups, epsilon, silu)
        if x in self.pending:
            y, bias, skip = self.pending.pop(x)
            return self.skip_group_norm(y, skip, bias, name, channels, groups, epsilon, silu, total=x)
        settings = {"groups": groups, "epsilon": epsilon, "activation": int(silu), "channels_last": 1}
        return self.microsoft("GroupNorm", x, *self.scale_and_shift(name, channels), **settings)

    def skip_group_norm(self, x, skip, bias, name, channels, groups, epsilon, silu, total=""):
        """Group norm of x + skip + bias; that sum is given out under the name `total`, if there is one."""
        self.settle(skip)
        settings = {"groups": groups, "epsilon": epsilon, "activation": int(silu), "channels_last": 1}
        inputs = [x, *self.scale_and_shift(name, channels), skip, bias]
        normed = self.value()
        outputs = [normed, total] if total else [normed]
        self.nodes.append(helper.make_node("SkipGroupNorm", inputs, outputs, domain=MICROSOFT, **settings))
        return normed

    def plain_group_norm(self, x, name, channels, groups, epsilon, silu):
        """Group norm of shapes that the fused kernel refuses, in float32 throughout."""
        weight, bias = self.scale_and_shift(name, channels)
        axes = self.ints(1, 3)
        grouped = self.op("Reshape", self.to_float(x), self.ints(0, -1, groups, channels // groups))
        centred = self.op("Sub", grouped, self.op("ReduceMean", grouped, axes))
        variance = self.op("ReduceMean", self.op("Mul", centred, centred), axes)
        deviation = self.op("Sqrt", self.op("Add", variance, self.constant(np.float32(epsilon))))
        y = self.op("Reshape", self.op("Div", centred, deviation), self.op("Shape", x))
        y = self.from_float(self.op("Add", self.op("Mul", y, weight), bias))
        return self.silu(y) if silu else y

    def concat_channels(self, a, b):
        return self.op("Concat", a, b, axis=3)

    def upsample(self, x, like=None):
        """Nearest: to twice the size, or to the height and width of `like`."""
        how = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        if like is None:
            return self.op("Resize", x, None, self.constant(np.array([1, 2, 2, 1], np.float32)), **how)
        return self.op("Resize", x, None, None, self.op("Shape", like, start=1, end=3), axes=[1, 2], **how)

    def to_tokens(self, x, channels):
        """[b, h, w, c] -> [b, h × w, c]"""
        return self.op("Reshape", x, self.ints(0, -1, channels))

    def to_image(self, x, like):
        """[b, h × w, c] -> [b, h, w, c], the shape of `like`."""
        return self.op("Reshape", x, self.op("Shape", like))

    # ---- tokens

    def linear(self, x, name, c_in, c_out, bias=True, plus=None):
        """[…, c_in] -> […, c_out]; `plus` is a value of the result's shape to add."""
        y = self.microsoft("FusedMatMul", x, self.parameter(f"{name}.weight", [c_out, c_in]), transB=1)
        offset = self.parameter(f"{name}.bias", [c_out]) if bias else None
        if bias and plus and c_out in BIAS_ADD_WIDTHS:
            return self.microsoft("BiasAdd", y, offset, plus)
        y = self.op("Add", y, offset) if bias else y
        return self.op("Add", y, plus) if plus else y

    def layer_norm(self, x, name, channels, epsilon=1e-5):
        weight, bias = (self.parameter(f"{name}.{p}", [channels]) for p in ("weight", "bias"))
        return self.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=epsilon)

    def linear_add_and_norm(self, x, skip, name, norm, channels, epsilon=1e-5):
        """(a linear layer of x plus skip, and the layer norm of that)"""
        y = self.linear(x, name, channels, channels, bias=False)
        return self.add_and_norm(y, skip, f"{name}.bias", norm, channels, epsilon)

    def add_and_norm(self, x, skip, bias, name, channels, epsilon=1e-5):
        """(x + bias + skip, that through layer norm); `bias` is a parameter's name."""
        weight, shift = (self.parameter(f"{name}.{p}", [channels]) for p in ("weight", "bias"))
        parameters = weight, shift, self.parameter(bias, [channels])
        normed, _, _, total = self.microsoft("SkipLayerNormalization", x, skip, *parameters, outputs=4, epsilon=epsilon)
        self.nodes[-1].output[1] = self.nodes[-1].output[2] = ""  # statistics, for training
        return total, normed

    def attention(self, q, k, v, heads, channels, causal=False):
        """[b, n, channels], [b, m, channels], [b, m, channels] -> [b, n, channels]"""
        if heads == 1 and channels > WIDEST_HEAD:
            scores = self.microsoft("FusedMatMul", q, k, transB=1, alpha=channels**-0.5)
            return self.op("MatMul", self.op("Softmax", scores, axis=-1), v)
        only = {"unidirectional": 1} if causal else {}
        return self.microsoft("MultiHeadAttention", q, k, v, num_heads=heads, **only)

    def geglu(self, x, name, channels, inner):
        """[b, n, channels] -> [b, n, inner]: one half of a projection times the exact GELU of the other."""
        if 2 * inner in BIAS_SPLIT_GELU_WIDTHS:
            y = self.linear(x, name, channels, 2 * inner, bias=False)
            return self.microsoft("BiasSplitGelu", y, self.parameter(f"{name}.bias", [2 * inner]))
        value, gate = self.op("Split", self.linear(x, name, channels, 2 * inner), outputs=2, axis=-1, num_outputs=2)
        return self.op("Mul", value, self.microsoft("Gelu", gate))

    def silu(self, x):
        """x × sigmoid(x)"""
        return self.microsoft("QuickGelu", x, alpha=1.0)

    def quick_gelu(self, x):
        """x × sigmoid(1.702 x), CLIP's"""
        return self.microsoft("QuickGelu", x, alpha=1.702)
