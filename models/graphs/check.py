"""Compares a graph with torch, for several batches and sizes. Only graphs that pass are written."""
import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx.reference import ReferenceEvaluator

import reference_ops
import torch_models
import weights

# Relative to the largest value of the output.
TOLERANCE = 1e-4  # float32 in another order of summation
HALF_TOLERANCE = 3e-2  # float16 all the way through


def text_encoder_cases(config):
    vocabulary, tokens, dim = config["vocab_size"], config["max_position_embeddings"], config["hidden_size"]
    for batch, extra in ((1, 1), (3, 5)):
        yield torch.randint(0, vocabulary + extra, (batch, tokens)), torch.randn(extra, dim) * 0.02


def checker_cases(config):
    side = config["vision_config"]["image_size"]
    for batch in (1, 2):
        yield (torch.randn(batch, 3, side, side),)


def unet_cases(config):
    c, dim = config["in_channels"], config["cross_attention_dim"]
    for batch, h, w, tokens in ((1, 16, 16, 77), (2, 9, 13, 154), (1, 8, 24, 77)):
        yield torch.randn(batch, c, h, w), torch.tensor([999.0, 20.42])[:batch], torch.randn(batch, tokens, dim)


def guided_unet_cases(config):
    for sample, timestep, context in unet_cases(config):
        yield sample, timestep, context, torch.randn(len(sample), config["time_cond_proj_dim"])


def shallow_unet_cases(config):
    cases = guided_unet_cases if config.get("time_cond_proj_dim") else unet_cases
    for sample, *others in cases(config):
        yield sample, *others, torch.randn(len(sample), config["block_out_channels"][0], *sample.shape[2:])


def controlnet_cases(config):
    for sample, timestep, context in unet_cases(config):
        batch, _, h, w = sample.shape
        for hints in {1, batch}:
            yield sample, timestep, context, torch.rand(hints, 3, 8 * h, 8 * w)


def controlled_unet_cases(config):
    channels, layers = config["block_out_channels"], config["layers_per_block"]
    for sample, timestep, context in unet_cases(config):
        size, shapes = sample.shape[2:], []
        for i, c in enumerate(channels):
            before = channels[max(i - 1, 0)]
            shapes += [(before, *size), *[(c, *size)] * layers]
            # A level halves its size behind its layers, and rounds up.
            size = [-(-side // 2) for side in size] if i + 1 < len(channels) else size
        shapes.append((channels[-1], *size))
        yield sample, timestep, context, *(torch.randn(len(sample), *shape) for shape in shapes)


def decoder_cases(config):
    for batch, h, w in ((1, 8, 8), (2, 9, 13)):
        yield (torch.randn(batch, config["latent_channels"], h, w),)


def encoder_cases(config):
    for batch, h, w in ((1, 64, 64), (2, 72, 104)):
        yield (torch.randn(batch, config["in_channels"], h, w),)


def session(model, state):
    """An ONNX Runtime session on the CPU. It gets the weights in memory, as in the server."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_prepacking", "1")  # half the memory, the same results
    options.add_session_config_entry("session.use_external_initializer_file_buffers_directly", "1")
    model = weights.compact(model)
    data = weights.fill(model, state).tobytes()
    options.add_external_initializers_from_files_in_memory(["weights"], [data], [len(data)])
    running = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    running.weights = data  # the session does not copy it, so it must live as long
    return running


def worst_error(run, reference, cases):
    """The largest difference over all cases and outputs, relative to the output's largest value."""
    worst = 0.0
    for case in cases:
        with torch.no_grad():
            wanted = reference(*case)
        for got, want in zip(run(case), wanted, strict=True):
            got = torch.from_numpy(got)
            if got.shape != want.shape:
                raise SystemExit(f"the graph gives {list(got.shape)}, torch {list(want.shape)}")
            worst = max(worst, float((got - want).abs().max() / want.abs().max()))
    return worst


def on_cpu(model, module, reference, cases):
    """The error of a CPU graph, computed with ONNX Runtime."""
    running = session(model, torch_models.state(module))
    names = [i.name for i in running.get_inputs()]
    return worst_error(lambda case: running.run(None, {n: v.numpy() for n, v in zip(names, case)}), reference, cases)


def by_reference(model, module, reference, cases):
    """The error of a CUDA graph, computed with onnx.reference, so that the build needs no card."""
    state = torch_models.state(module)
    arrays = {t.name: weights.as_stored(t, state[t.name]) for t, _, _ in weights.parameters(model)}
    evaluator = ReferenceEvaluator(with_parameters_as_inputs(model), new_ops=reference_ops.OPERATORS)
    names = [i.name for i in model.graph.input]
    with np.errstate(over="ignore"):
        return worst_error(lambda case: evaluator.run(None, arrays | {n: v.numpy() for n, v in zip(names, case)}), reference, cases)


def resolves(model):
    """Raises if ONNX Runtime finds a wrong name, type or attribute. The CPU has no kernel for NhwcConv, which is expected."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    model = weights.compact(model)
    length = max(offset + length for _, offset, length in weights.parameters(model))
    data = bytes(length)  # the options point to it
    options.add_external_initializers_from_files_in_memory(["weights"], [data], [length])
    try:
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except ort.capi.onnxruntime_pybind11_state.NotImplemented as missing:
        if "NhwcConv" not in str(missing):
            raise


def with_parameters_as_inputs(model):
    """The graph with its parameters as inputs, because onnx.reference needs initializers with data."""
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    del graph.initializer[:]
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
        else:
            graph.initializer.append(tensor)
    return onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
