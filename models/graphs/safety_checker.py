"""The safety checker (diffusers' StableDiffusionSafetyChecker): CLIP's vision model, and how near a picture is to each concept."""
import numpy as np
from onnx import TensorProto

import clip

CONCEPTS, SPECIAL_CARE = 17, 3
# torch's `normalize` divides by no less than this.
LEAST_NORM = 1e-12


def build(net, config):
    """clip_input [batch, 3, side, side] -> scores [batch, 20]: those of the 3 concepts that need special care, then those of the 17 others.

    A score is the cosine between the picture and a concept, minus the concept's threshold. The caller rounds the scores and
    makes the verdict, as diffusers does outside its networks.
    """
    vision, dim = config["vision_config"], config["vision_config"]["hidden_size"]
    epsilon, side = vision.get("layer_norm_eps", 1e-5), vision["image_size"]
    picture = net.input("clip_input", ["batch", 3, side, side])

    prefix = "vision_model.vision_model"
    x = net.layer_norm(embeddings(net, picture, vision, f"{prefix}.embeddings"), f"{prefix}.pre_layrnorm", dim, epsilon)
    normed = net.layer_norm(x, f"{prefix}.encoder.layers.0.layer_norm1", dim, epsilon)
    outputs, _ = clip.encoder_layers(net, normed, x, vision, f"{prefix}.encoder.layers", None, causal=False)
    first = net.op("Gather", outputs[-1], net.constant(np.array(0, np.int64)), axis=1)
    pooled = net.layer_norm(first, f"{prefix}.post_layernorm", dim, epsilon)
    width = config["projection_dim"]
    embedding = normalised(net, net.to_float(net.linear(pooled, "visual_projection", dim, width, bias=False)))
    scores = []
    for name, count in (("special_care_embeds", SPECIAL_CARE), ("concept_embeds", CONCEPTS)):
        # In float32: a score is compared in steps of a thousandth.
        concepts = net.parameter(name, [count, width], element_type=TensorProto.FLOAT)
        thresholds = net.parameter(f"{name}_weights", [count], element_type=TensorProto.FLOAT)
        cosines = net.microsoft("FusedMatMul", embedding, normalised(net, concepts), transB=1)
        scores.append(net.op("Sub", cosines, thresholds))
    net.output(net.op("Concat", *scores, axis=1), "scores", ["batch", SPECIAL_CARE + CONCEPTS])


def embeddings(net, picture, config, name):
    """[batch, 3, side, side] -> [batch, 1 + patches, dim]: the class embedding and every patch's, each plus its position's."""
    dim, patch = config["hidden_size"], config["patch_size"]
    across = config["image_size"] // patch
    # A convolution whose steps are as long as its kernel is a linear map of each patch.
    cut = net.op("Reshape", net.from_float(picture), net.ints(0, 3, across, patch, across, patch))
    cut = net.op("Reshape", net.op("Transpose", cut, perm=[0, 2, 4, 1, 3, 5]), net.ints(0, across * across, 3 * patch * patch))
    kernel = net.parameter(f"{name}.patch_embedding.weight", [dim, 3, patch, patch])
    patches = net.microsoft("FusedMatMul", cut, net.op("Reshape", kernel, net.ints(dim, -1)), transB=1)
    # Row 0 is the class embedding's. It is added together with the positions: shapes need no work on the CPU then.
    tokens = net.op("Pad", patches, net.ints(0, 1, 0, 0, 0, 0))
    first = net.op("Reshape", net.parameter(f"{name}.class_embedding", [dim]), net.ints(1, dim))
    positions = net.parameter(f"{name}.position_embedding.weight", [1 + across * across, dim])
    return net.op("Add", tokens, net.op("Add", positions, net.op("Pad", first, net.ints(0, 0, across * across, 0))))


def normalised(net, x):
    """[n, width] -> the same, each row with length 1."""
    length = net.op("ReduceL2", x, net.ints(1), keepdims=1)
    return net.op("Div", x, net.op("Max", length, net.constant(np.float32(LEAST_NORM))))
