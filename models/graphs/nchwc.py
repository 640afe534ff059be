"""The CPU's layers with convolutions in blocks of channels, for processors that have such kernels (x86-64).

ONNX Runtime makes the same of the plain graph by itself, at its highest level of optimisation, from a second copy of every
weight: for Stable Diffusion v1 2.4 GB more, and seconds at every start. Here the weights come in blocks to begin with.
How many channels a block has, 8 or 16, is the processor's: the graph is the same, the order of the weights is not.
"""
from cpu import CpuGraph

DOMAIN = "com.microsoft.nchwc"
LAYOUT = "OIHWBiBo"
# Both sizes of block divide it.
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
