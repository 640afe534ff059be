"""CPU layers with the loader's own operators.

`Conv3x3` is a 3×3 convolution with stride 1 that needs a quarter of the products. It reads and writes images as all other layers
do, so nothing is reordered around it. It adds the bias, and what the graph would add next: the time embedding or another image.
The other convolutions are those of the `nchwc` build. `GroupNorm` is a group norm, and SiLU if it follows, in two passes over an
image; ONNX's own operators take five. `GeGlu` is what follows a projection's product in a transformer: bias, GELU and product.
`Attention` is faster than `MultiHeadAttention`, most of all with many tokens.
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

    def group_norm(self, x, name, channels, groups, epsilon, silu=False):
        parameters = (self.parameter(f"{name}.{p}", [channels]) for p in ("weight", "bias"))
        return self.op("GroupNorm", x, *parameters, domain=DOMAIN, groups=groups, epsilon=epsilon, silu=int(silu))

    def geglu(self, x, name, channels, inner):
        projected = self.linear(x, name, channels, 2 * inner, bias=False)
        return self.op("GeGlu", projected, self.parameter(f"{name}.bias", [2 * inner]), domain=DOMAIN)

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
            "GeGlu": geglu_written_out, "Attention": attention_written_out}
    for node in model.graph.node:
        if node.domain == DOMAIN:
            ways[node.op_type](twin.graph, node)
        else:
            twin.graph.node.append(node)
    return twin


def attention_written_out(graph, node):
    heads = helper.get_attribute_value(node.attribute[0])
    graph.node.append(helper.make_node("MultiHeadAttention", node.input, node.output, domain="com.microsoft", num_heads=heads))


def geglu_written_out(graph, node):
    (x, bias), result = node.input, node.output[0]
    halves = [f"{result}.value", f"{result}.gate"]
    graph.node.extend([
        helper.make_node("Add", [x, bias], [f"{result}.sum"]),
        helper.make_node("Split", [f"{result}.sum"], halves, axis=-1, num_outputs=2),
        helper.make_node("Gelu", [halves[1]], [f"{result}.gelu"]),
        helper.make_node("Mul", [halves[0], f"{result}.gelu"], [result]),
    ])


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
    o, c = next(list(tensor.dims)[:2] for tensor in graph.initializer if tensor.name == weight)
    for name, shape in (("blocks", [o // MULTIPLE, c, 9, MULTIPLE]), ("shape", [o, c, 3, 3])):
        graph.initializer.append(helper.make_tensor(f"{weight}.{name}", 7, [len(shape)], shape))
    graph.node.append(helper.make_node("Reshape", [weight, f"{weight}.blocks"], [f"{weight}.in_blocks"]))
    graph.node.append(helper.make_node("Transpose", [f"{weight}.in_blocks"], [f"{weight}.in_order"], perm=[0, 3, 1, 2]))
    graph.node.append(helper.make_node("Reshape", [f"{weight}.in_order", f"{weight}.shape"], [f"{weight}.plain"]))
    return f"{weight}.plain"
