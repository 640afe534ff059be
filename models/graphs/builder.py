"""A graph under construction: values with short names, nodes in order, parameters with their names in checkpoints.

Parameters have no data. Each one names its position in a buffer called "weights", which does not exist on disk. The loader
of the graph creates this buffer, fills it from a checkpoint and passes it to ONNX Runtime.
"""
import math

import numpy as np
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
ALIGNMENT = 64
MICROSOFT = "com.microsoft"
BYTES = {TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2}


class Graph:
    """Knows ONNX, but no networks and no devices."""

    def __init__(self, name, element_type):
        self.name = name
        self.element_type = element_type
        self.inputs, self.outputs, self.nodes = [], [], []
        self.parameters, self.constants = {}, {}
        self.places = None  # another graph's parameters, whose offsets these have, too
        self.weights_length = 0
        self.counter = 0

    def input(self, name, dims, element_type=TensorProto.FLOAT):
        """An input. `dims` are numbers, or names for sizes that may vary."""
        self.inputs.append(helper.make_tensor_value_info(name, element_type, dims))
        return name

    def output(self, value, name, dims):
        """Makes `value` the float32 output `name`."""
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
        self.nodes.append(helper.make_node("Identity", [value], [name]))

    def op(self, kind, *inputs, outputs=1, domain="", **attributes):
        """Appends a node. None stands for an omitted input. Returns the name of its output, or a list of names."""
        names = [self.value() for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, [i or "" for i in inputs], names, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def value(self):
        """A new name."""
        self.counter += 1
        return f"v{self.counter}"

    def microsoft(self, kind, *inputs, **attributes):
        """Appends one of ONNX Runtime's own operators."""
        return self.op(kind, *inputs, domain=MICROSOFT, **attributes)

    def parameter(self, name, dims, doc="", element_type=None):
        """The parameter with this name in checkpoints, in the graph's element type or another. A second call returns the same one."""
        known = self.parameters.get(name)
        if known is not None:
            assert list(known.dims) == list(dims), name
            return name
        element_type = element_type or self.element_type
        tensor = TensorProto(name=name, data_type=element_type, data_location=TensorProto.EXTERNAL, doc_string=doc)
        tensor.dims.extend(dims)
        length = math.prod(dims) * BYTES[element_type]
        offset = self.weights_length if self.places is None else offset_of(self.places[name])
        for key, value in (("location", "weights"), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        self.weights_length = offset + -(-length // ALIGNMENT) * ALIGNMENT
        self.parameters[name] = tensor
        return name

    def constant(self, array):
        """A small tensor that is stored in the graph itself (shapes must be)."""
        array = np.asarray(array)
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(array, f"c{len(self.constants)}")
        return self.constants[key].name

    def ints(self, *values):
        """A vector of int64."""
        return self.constant(np.array(values, np.int64))

    def model(self):
        """The whole graph as a ModelProto."""
        initializers = [*self.constants.values(), *self.parameters.values()]
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, initializers)
        others = {node.domain for node in self.nodes} - {"", MICROSOFT}
        opsets = [helper.make_opsetid("", OPSET), *(helper.make_opsetid(domain, 1) for domain in [MICROSOFT, *sorted(others)])]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9, producer_name="stablehand")


def offset_of(tensor):
    """Where a parameter lies in the buffer."""
    return next(int(entry.value) for entry in tensor.external_data if entry.key == "offset")
