"""CPU layers with the loader's own operators.

`Conv3x3` is a 3×3 convolution with stride 1 that needs a quarter of the products. It reads and writes images as all other layers
do, so nothing is reordered around it. It adds the bias, and what the graph would add next: the time embedding or another image.
The other convolutions are those of the `nchwc` build. `GroupNorm` is a group norm, and SiLU if it follows, in two passes over an
image; ONNX's own operators take five. `Linear` is a linear layer with what is around it: a layer norm before, the bias, GEGLU, or
a value to add. `Attention` is faster than `MultiHeadAttention`, most of all with many tokens.
"""
from typing import NamedTuple

from onnx import helper

from nchwc import NchwcGraph

DOMAIN = "stablehand"
LAYOUT = "OIHWBo"
LINEAR_LAYOUT = "OIBo"
# Channels in a block, whatever the processor.
MULTIPLE = 16


class Normed(NamedTuple):
    """A layer norm that the linear layers after it compute."""
    value: str
    parameters: list
    epsilon: float


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

    def group_norm(self, x, name, channels, groups, epsilon, silu=False):
        parameters = (self.parameter(f"{name}.{p}", [channels]) for p in ("weight", "bias"))
        return self.op("GroupNorm", x, *parameters, domain=DOMAIN, groups=groups, epsilon=epsilon, silu=int(silu))

    def linear(self, x, name, c_in, c_out, bias=True, plus=None, gated=False):
        """`x` may be a `Normed`. With `gated`, the first half of the results times the GELU of the other."""
        if c_in % MULTIPLE or c_out % MULTIPLE:
            assert not gated
            return super().linear(x, name, c_in, c_out, bias, plus)
        weight = self.parameter(f"{name}.weight", [c_out, c_in], LINEAR_LAYOUT)
        bias = self.parameter(f"{name}.bias", [c_out]) if bias else None
        value, norm, attributes = x, [], {"gated": 1} if gated else {}
        if isinstance(x, Normed):
            value, norm = x.value, x.parameters
            attributes["epsilon"] = x.epsilon
        inputs = [value, weight, bias, plus, *norm]
        while inputs[-1] is None:
            inputs.pop()
        return self.op("Linear", *inputs, domain=DOMAIN, **attributes)

    def layer_norm(self, x, name, channels, epsilon=1e-5):
        if channels % MULTIPLE:
            return super().layer_norm(x, name, channels, epsilon)
        return Normed(x, [self.parameter(f"{name}.{p}", [channels]) for p in ("weight", "bias")], epsilon)

    def linear_add_and_norm(self, x, skip, name, norm, channels, epsilon=1e-5):
        total = self.linear(x, name, channels, channels, plus=skip)
        return total, self.layer_norm(total, norm, channels, epsilon)

    def geglu(self, x, name, channels, inner):
        if channels % MULTIPLE or inner % MULTIPLE:
            return super().geglu(x, name, channels, inner)
        return self.linear(x, name, channels, 2 * inner, gated=True)

    def attention(self, q, k, v, heads, channels, causal=False):
        if causal:
            return super().attention(q, k, v, heads, channels, causal)
        return self.op("Attention", q, k, v, domain=DOMAIN, heads=heads)


def written_out(model):
    """The same graph in the operators of ONNX and of ONNX Runtime, for a runtime that lacks ours."""
    twin = type(model)()
    twin.CopyFrom(model)
    del twin.graph.node[:]
    blocks = {}
    ways = {"Conv3x3": lambda graph, node: conv_written_out(graph, node, blocks), "GroupNorm": norm_written_out,
            "Linear": linear_written_out, "Attention": attention_written_out}
    for node in model.graph.node:
        if node.domain == DOMAIN:
            ways[node.op_type](twin.graph, node)
        else:
            twin.graph.node.append(node)
    return twin


def attention_written_out(graph, node):
    heads = helper.get_attribute_value(node.attribute[0])
    graph.node.append(helper.make_node("MultiHeadAttention", node.input, node.output, domain="com.microsoft", num_heads=heads))


def linear_written_out(graph, node):
    (x, weight, bias, plus, *norm), result = [*node.input, "", "", ""][:max(4, len(node.input))], node.output[0]
    of = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}

    def add(kind, inputs, name, outputs=1, **attributes):
        names = [f"{result}.{name}.{i}" for i in range(outputs)]
        graph.node.append(helper.make_node(kind, inputs, names, **attributes))
        return names if outputs > 1 else names[0]

    y = add("LayerNormalization", [x, *norm], "normed", axis=-1, epsilon=of["epsilon"]) if norm else x
    y = add("FusedMatMul", [y, plain_linear(graph, weight)], "products", domain="com.microsoft", transB=1)
    y = add("Add", [y, bias], "biased") if bias else y
    if of.get("gated"):
        value, gate = add("Split", [y], "halves", outputs=2, axis=-1, num_outputs=2)
        y = add("Mul", [value, add("Gelu", [gate], "gelu")], "gated")
    y = add("Add", [y, plus], "sum") if plus else y
    graph.node.append(helper.make_node("Identity", [y], [result]))


def norm_written_out(graph, node):
    (x, weight, bias), result = node.input, node.output[0]
    of = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}

    def add(kind, inputs, name, **attributes):
        graph.node.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(name, element_type, values):
        graph.initializer.append(helper.make_tensor(f"{result}.{name}", element_type, [len(values)], values))
        return f"{result}.{name}"

    per_channel = constant("per_channel", 7, [-1, 1, 1])
    ones, zeros = (constant(name, 1, [value] * of["groups"]) for name, value in (("ones", 1.0), ("zeros", 0.0)))
    y = add("GroupNormalization", [x, ones, zeros], f"{result}.normal", num_groups=of["groups"], epsilon=of["epsilon"])
    y = add("Mul", [y, add("Reshape", [weight, per_channel], f"{result}.weight")], f"{result}.scaled")
    y = add("Add", [y, add("Reshape", [bias, per_channel], f"{result}.bias")], f"{result}.shifted" if of["silu"] else result)
    if of["silu"]:
        add("Mul", [y, add("Sigmoid", [y], f"{result}.sigmoid")], result)


def conv_written_out(graph, node, blocks):
    x, weight, bias, shift, image = [*node.input, "", ""][:5]
    if weight not in blocks:
        blocks[weight] = plain_order(graph, weight)
    steps = [("Conv", [x, blocks[weight], bias], {"kernel_shape": [3, 3], "pads": [1] * 4})]
    if shift:
        graph.initializer.append(helper.make_tensor(f"{node.output[0]}.axes", 7, [2], [2, 3]))
        graph.node.append(helper.make_node("Unsqueeze", [shift, f"{node.output[0]}.axes"], [f"{node.output[0]}.shift"]))
        steps.append(("Add", [f"{node.output[0]}.shift"], {}))
    if image:
        steps.append(("Add", [image], {}))
    value = None
    for i, (kind, inputs, attributes) in enumerate(steps):
        output = node.output[0] if i + 1 == len(steps) else f"{node.output[0]}.{i}"
        graph.node.append(helper.make_node(kind, inputs + ([value] if value else []), [output], **attributes))
        value = output


def plain_order(graph, weight):
    """A weight [o, c, 3, 3] in the order of checkpoints. Its values lie in the order [o / 16][c][9][16]."""
    o, c = dims_of(graph, weight)[:2]
    return reordered(graph, weight, [o // MULTIPLE, c, 9, MULTIPLE], [0, 3, 1, 2], [o, c, 3, 3])


def plain_linear(graph, weight):
    """A weight [o, i] in the order of checkpoints. Its values lie in the order [o / 16][i][16]."""
    plain = f"{weight}.plain"
    if not any(plain in node.output for node in graph.node):
        o, i = dims_of(graph, weight)
        reordered(graph, weight, [o // MULTIPLE, i, MULTIPLE], [0, 2, 1], [o, i])
    return plain


def dims_of(graph, weight):
    return next(list(tensor.dims) for tensor in graph.initializer if tensor.name == weight)


def reordered(graph, weight, blocks, permutation, shape):
    for name, dims in (("blocks", blocks), ("shape", shape)):
        graph.initializer.append(helper.make_tensor(f"{weight}.{name}", 7, [len(dims)], dims))
    graph.node.append(helper.make_node("Reshape", [weight, f"{weight}.blocks"], [f"{weight}.in_blocks"]))
    graph.node.append(helper.make_node("Transpose", [f"{weight}.in_blocks"], [f"{weight}.in_order"], perm=permutation))
    graph.node.append(helper.make_node("Reshape", [f"{weight}.in_order", f"{weight}.shape"], [f"{weight}.plain"]))
    return f"{weight}.plain"
