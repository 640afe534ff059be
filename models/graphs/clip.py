"""The layers that both of CLIP's networks have: the text encoder and the vision model."""


def encoder_layers(net, normed, x, config, prefix, last_norm, causal):
    """All layers: `x` [batch, n, dim] and `normed`, which is `x` after the first layer's norm.

    Returns the output of every layer, and the last one after the norm `last_norm` (None: without a norm).
    """
    dim, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    epsilon = config.get("layer_norm_eps", 1e-5)
    outputs = []
    for i in range(layers):
        layer = f"{prefix}.{i}"
        attended = self_attention(net, normed, f"{layer}.self_attn", dim, config["num_attention_heads"], causal)
        x, normed = net.add_and_norm(attended, x, f"{layer}.self_attn.out_proj.bias", f"{layer}.layer_norm2", dim, epsilon)
        h = net.linear(normed, f"{layer}.mlp.fc1", dim, inner)
        following = f"{prefix}.{i + 1}.layer_norm1" if i + 1 < layers else last_norm
        if following:
            # One operator does the last addition of this layer and the norm after it.
            h = net.linear(net.quick_gelu(h), f"{layer}.mlp.fc2", inner, dim, bias=False)
            x, normed = net.add_and_norm(h, x, f"{layer}.mlp.fc2.bias", following, dim, epsilon)
        else:
            x = net.linear(net.quick_gelu(h), f"{layer}.mlp.fc2", inner, dim, plus=x)
        outputs.append(x)
    return outputs, normed


def self_attention(net, x, name, dim, heads, causal):
    """[batch, n, dim] -> the same shape. If `causal`, each position sees only earlier ones. The caller adds the bias of the output projection."""
    q, k, v = (net.linear(x, f"{name}.{p}_proj", dim, dim) for p in "qkv")
    return net.linear(net.attention(q, k, v, heads, dim, causal=causal), f"{name}.out_proj", dim, dim, bias=False)
