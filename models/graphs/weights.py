"""Fills the buffer that a graph calls "weights", for the checks. The server fills it in the same way from a checkpoint."""
import functools

import numpy as np
import onnxruntime as ort
from onnx import TensorProto

from builder import ALIGNMENT, BYTES, Graph

NUMPY = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


def parameters(model):
    """The parameters of the graph: (TensorProto, offset, length), in the order of the buffer."""
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            place = {entry.key: entry.value for entry in tensor.external_data}
            yield tensor, int(place["offset"]), int(place["length"])


def as_stored(tensor, array):
    """An array from a checkpoint, in the element type and layout that the graph needs."""
    if tensor.doc_string == "OHWI":
        array = np.transpose(array, (0, 2, 3, 1))
    if tensor.doc_string == "OIHWBiBo":
        o, i, h, w = array.shape
        b = channels_in_a_block()
        array = array.reshape(o // b, b, i // b, b, h, w).transpose(0, 2, 4, 5, 3, 1).reshape(o, i, h, w)
    if tensor.doc_string == "OIHWBo":
        o, i, h, w = array.shape
        array = array.reshape(o // 16, 16, i, h, w).transpose(0, 2, 3, 4, 1).reshape(o, i, h, w)
    if tensor.doc_string == "OIBo":
        o, i = array.shape
        array = array.reshape(o // 16, 16, i).transpose(0, 2, 1).reshape(o, i)
    if list(array.shape) != list(tensor.dims):
        raise SystemExit(f"{tensor.name} is {list(array.shape)} in the checkpoint and {list(tensor.dims)} in the graph")
    return np.ascontiguousarray(array, NUMPY[tensor.data_type])


@functools.cache
def channels_in_a_block():
    """The block size of this processor's convolutions: with it, a blocked convolution gives the same as a plain one."""
    x, w = np.arange(16, dtype=np.float32).reshape(1, 16, 1, 1), np.eye(16, k=1, dtype=np.float32)
    for b in (8, 16):
        blocks = w.reshape(16 // b, b, 16 // b, b).transpose(0, 2, 3, 1).reshape(16, 16, 1, 1)
        graph = Graph("probe", TensorProto.FLOAT)
        y = graph.op("ReorderInput", graph.input("x", [1, 16, 1, 1]), domain="com.microsoft.nchwc")
        y = graph.op("Conv", y, graph.constant(blocks), domain="com.microsoft.nchwc", kernel_shape=[1, 1])
        graph.output(graph.op("ReorderOutput", y, domain="com.microsoft.nchwc", channels=16), "y", [1, 16, 1, 1])
        try:
            session = ort.InferenceSession(graph.model().SerializeToString(), providers=["CPUExecutionProvider"])
            if np.array_equal(session.run(None, {"x": x})[0].ravel(), w @ x.ravel()):
                return b
        except ort.capi.onnxruntime_pybind11_state.Fail:
            pass
    raise SystemExit("this processor has no blocked convolutions: build the other graphs with --build cpu --build cuda")


def compact(model):
    """The same graph with its parameters one behind the other. A graph that has the places of a larger one leaves gaps."""
    twin = type(model)()
    twin.CopyFrom(model)
    end = 0
    for tensor, _, length in parameters(twin):
        for entry in tensor.external_data:
            if entry.key == "offset":
                entry.value = str(end)
        end += -(-length // ALIGNMENT) * ALIGNMENT
    return twin


def fill(model, state):
    """The buffer (uint8), from `state`: checkpoint name -> array."""
    known = list(parameters(model))
    size = max(offset + length for _, offset, length in known)
    buffer, end = np.zeros(size, np.uint8), 0
    for tensor, offset, length in known:
        array = as_stored(tensor, state[tensor.name])
        assert offset >= end and offset % 64 == 0 and length == array.size * BYTES[tensor.data_type], tensor.name
        buffer[offset:offset + length] = array.view(np.uint8).reshape(-1)
        end = offset + length
    return buffer
