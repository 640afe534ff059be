"""CPU layers whose 3×3 convolutions with stride 1 are the loader's own operator, which needs a quarter of the products.

The operator reads and writes images as all other layers do, so nothing is reordered around it. It adds the bias, and what the
graph would add next: the time embedding or another image. The other convolutions are those of the `nchwc` build.
"""
from onnx import helper

from nchwc import NchwcGraph

DOMAIN = "stablehand"
LAYOUT = "OIHWBo"
# Channels in a block, whatever the processor.
MULTIPLE = 16


class WinogradGraph(NchwcGraph):
    def conv(self, x, name, c_in, c_out, kernel=3, stride=1, pads=None, plus=None, shift=None):
        """`shift` [b, c_out] is added to each channel."""
        if kernel != 3 or stride != 1 or pads or c_in % MULTIPLE or c_out % MULTIPLE:
            assert shift is None
            return super().conv(x, name, c_in, c_out, kernel, stride, pads, plus)
        weight = self.parameter(f"{name}.weight", [c_out, c_in, 3, 3], LAYOUT)
        inputs = [x, weight, self.parameter(f"{name}.bias", [c_out]), shift, plus]
        while inputs[-1] is None:
            inputs.pop()
        return self.op("Conv3x3", *inputs, domain=DOMAIN)

    def conv_add_time(self, x, name, c_in, c_out, time, norm, groups, epsilon):
        if c_in % MULTIPLE or c_out % MULTIPLE:
            return super().conv_add_time(x, name, c_in, c_out, time, norm, groups, epsilon)
        y = self.conv(x, name, c_in, c_out, shift=time)
        return self.group_norm(y, norm, c_out, groups, epsilon, silu=True)


def written_out(model):
    """The same graph in ONNX's own operators, for a runtime that lacks ours."""
    twin = type(model)()
    twin.CopyFrom(model)
    del twin.graph.node[:]
    blocks = {}
    for node in model.graph.node:
        if node.domain != DOMAIN:
            twin.graph.node.append(node)
            continue
        x, weight, bias, shift, image = [*node.input, "", ""][:5]
        if weight not in blocks:
            blocks[weight] = plain_order(twin.graph, weight)
        steps = [("Conv", [x, blocks[weight], bias], {"kernel_shape": [3, 3], "pads": [1] * 4})]
        if shift:
            twin.graph.initializer.append(helper.make_tensor(f"{node.output[0]}.axes", 7, [2], [2, 3]))
            twin.graph.node.append(helper.make_node("Unsqueeze", [shift, f"{node.output[0]}.axes"], [f"{node.output[0]}.shift"]))
            steps.append(("Add", [f"{node.output[0]}.shift"], {}))
        if image:
            steps.append(("Add", [image], {}))
        value = None
        for i, (kind, inputs, attributes) in enumerate(steps):
            output = node.output[0] if i + 1 == len(steps) else f"{node.output[0]}.{i}"
            twin.graph.node.append(helper.make_node(kind, inputs + ([value] if value else []), [output], **attributes))
            value = output
    return twin


def plain_order(graph, weight):
    """A weight [o, c, 3, 3] in the order of checkpoints. Its values lie in the order [o / 16][c][9][16]."""
    o, c = next(list(tensor.dims)[:2] for tensor in graph.initializer if tensor.name == weight)
    for name, shape in (("blocks", [o // MULTIPLE, c, 9, MULTIPLE]), ("shape", [o, c, 3, 3])):
        graph.initializer.append(helper.make_tensor(f"{weight}.{name}", 7, [len(shape)], shape))
    graph.node.append(helper.make_node("Reshape", [weight, f"{weight}.blocks"], [f"{weight}.in_blocks"]))
    graph.node.append(helper.make_node("Transpose", [f"{weight}.in_blocks"], [f"{weight}.in_order"], perm=[0, 3, 1, 2]))
    graph.node.append(helper.make_node("Reshape", [f"{weight}.in_order", f"{weight}.shape"], [f"{weight}.plain"]))
    return f"{weight}.plain"
