"""CPU layers whose convolutions work on blocks of channels, for processors with such kernels (x86-64).

At its highest level of optimisation, ONNX Runtime turns the plain graph into this form by itself. But it needs a second copy
of every weight for that: 2.4 GB for Stable Diffusion v1, and seconds at every start. Here the weights are in blocks from the
beginning. The processor decides whether a block has 8 or 16 channels. The graph is the same for both; the order of the
weights differs.
"""
from cpu import CpuGraph

DOMAIN = "com.microsoft.nchwc"
LAYOUT = "OIHWBiBo"
# Divisible by both block sizes.
MULTIPLE = 16


class NchwcGraph(CpuGraph):
    def conv(self, x, name, c_in, c_out, kernel=3, stride=1, pads=None, plus=None):
        if c_in % MULTIPLE or c_out % MULTIPLE:
            return super().conv(x, name, c_in, c_out, kernel, stride, pads, plus)
        weight = self.parameter(f"{name}.weight", [c_out, c_in, kernel, kernel], LAYOUT)
        bias = self.parameter(f"{name}.bias", [c_out])
        blocks = self.op("ReorderInput", x, domain=DOMAIN)
        y = self.op("Conv", blocks, weight, bias, domain=DOMAIN, kernel_shape=[kernel, kernel], strides=[stride, stride],
                    pads=pads or [kernel // 2] * 4)
        y = self.op("ReorderOutput", y, domain=DOMAIN, channels=c_out)
        return self.op("Add", y, plus) if plus else y

    def conv_relu(self, x, name, c_in, c_out, plus=None, relu=True, bias=True):
        """Between `blocks_in` and `blocks_out`, images stay in blocks: the kernel adds and clips by itself."""
        if c_in % MULTIPLE or c_out % MULTIPLE:
            return super().conv_relu(x, name, c_in, c_out, plus, relu, bias)
        weight = self.parameter(f"{name}.weight", [c_out, c_in, 3, 3], LAYOUT)
        inputs = [x, weight, self.parameter(f"{name}.bias", [c_out]) if bias else None, plus]
        while inputs[-1] is None:
            inputs.pop()
        clipped = {"activation": "Relu"} if relu else {}
        return self.op("Conv", *inputs, domain=DOMAIN, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4, **clipped)

    def blocks_in(self, x):
        return self.op("ReorderInput", x, domain=DOMAIN)

    def blocks_out(self, x, channels):
        return self.op("ReorderOutput", x, domain=DOMAIN, channels=channels)

    def double(self, x):
        return self.op("Upsample", x, domain=DOMAIN, scales=[1, 1, 2, 2])
