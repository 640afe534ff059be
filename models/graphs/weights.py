"""The buffer that a graph calls "weights": made here for the checks as the server makes it from a checkpoint."""
import numpy as np
from onnx import TensorProto

from builder import BYTES

NUMPY = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


def parameters(model):
    """The graph's parameters: (TensorProto, offset, length) in the order of the buffer."""
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            place = {entry.key: entry.value for entry in tensor.external_data}
            yield tensor, int(place["offset"]), int(place["length"])


def as_stored(tensor, array):
    """A checkpoint's array in the element type and layout that the graph asks for."""
    if tensor.doc_string == "OHWI":
        array = np.transpose(array, (0, 2, 3, 1))
    if list(array.shape) != list(tensor.dims):
        raise SystemExit(f"{tensor.name} is {list(array.shape)} in the checkpoint and {list(tensor.dims)} in the graph")
    return np.ascontiguousarray(array, NUMPY[tensor.data_type])


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
