"""CLIP's text encoder (transformers' CLIPTextModel). It also gives the output of every layer, for clip_skip."""
import numpy as np
from onnx import TensorProto

import clip


def build(net, config):
    """input_ids [batch, tokens] int64, extra_embeddings [n, dim] -> last_hidden_state and clip_skip.k [batch, tokens, dim].

    A token id from vocab_size on means row (id - vocab_size) of `extra_embeddings` (textual inversion).
    clip_skip.k is the k-th hidden state from the end, after the final layer norm. last_hidden_state is the same for k = 1.
    """
    dim, layers, vocabulary = config["hidden_size"], config["num_hidden_layers"], config["vocab_size"]
    epsilon = config.get("layer_norm_eps", 1e-5)
    tokens = config["max_position_embeddings"]
    ids = net.input("input_ids", ["batch", tokens], TensorProto.INT64)
    extra = net.input("extra_embeddings", ["extra", dim])

    x = embeddings(net, ids, extra, vocabulary, tokens, dim)
    prefix = "text_model.encoder.layers"
    normed = net.layer_norm(x, f"{prefix}.0.layer_norm1", dim, epsilon)
    layer_outputs, normed = clip.encoder_layers(net, normed, x, config, prefix, "text_model.final_layer_norm", causal=True)

    shape = ["batch", tokens, dim]
    net.output(net.to_float(normed), "last_hidden_state", shape)
    for skip in range(2, layers + 1):
        hidden = net.layer_norm(layer_outputs[-skip], "text_model.final_layer_norm", dim, epsilon)
        net.output(net.to_float(hidden), f"clip_skip.{skip}", shape)


def embeddings(net, ids, extra, vocabulary, tokens, dim):
    """[batch, tokens] -> [batch, tokens, dim]: the token's vector (from the vocabulary or from `extra`) plus its position's."""
    size = net.constant(np.array(vocabulary, np.int64))
    known = net.op("Min", ids, net.constant(np.array(vocabulary - 1, np.int64)))
    beyond = net.op("Max", net.op("Sub", ids, size), net.constant(np.array(0, np.int64)))
    table = net.parameter("text_model.embeddings.token_embedding.weight", [vocabulary, dim])
    of_vocabulary = net.op("Gather", table, known)
    of_extra = net.from_float(net.op("Gather", extra, beyond))
    is_extra = net.op("Unsqueeze", net.op("GreaterOrEqual", ids, size), net.ints(-1))
    token = net.op("Where", is_extra, of_extra, of_vocabulary)
    return net.op("Add", token, net.parameter("text_model.embeddings.position_embedding.weight", [tokens, dim]))

