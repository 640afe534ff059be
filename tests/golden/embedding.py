"""Writes embedding.json: embeddings of weighted and long prompts on the default model, as A1111 computes them.

    pip install numpy onnx onnxruntime transformers
    python tests/golden/embedding.py stable-diffusion-webui/modules/prompt_parser.py

It uses A1111's own parser, as prompt.py does. Chunks and weights are computed again below, after
modules/sd_hijack_clip.py (tokenize_line) and modules/sd_emphasis.py ("Original"). It keeps every 41st value of a chunk.
"""
import json, os, re, sys
import numpy as np
import onnx
import onnxruntime
from transformers import CLIPTokenizer

source = open(sys.argv[1]).read()
space = {"re": re}
exec(source[source.index("re_attention = "):source.index('if __name__ == "__main__"')], space)
HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.join(HERE, "..", "..", "models", "tiny-sd")
GRAPHS = os.path.join(HERE, "..", "models", "tiny-sd-onnx")
tokenizer = CLIPTokenizer.from_pretrained(os.path.join(MODEL, "tokenizer"))
session = onnxruntime.InferenceSession(os.path.join(GRAPHS, "text_encoder", "model.onnx"), providers=["CPUExecutionProvider"])
BOS, EOS, COMMA = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.get_vocab().get(",</w>")
ROOM, BACKTRACK = 75, 20

words = ["red", "heart", "blue", "background", "fox", "house", "green", "tree", "star", "moon", "yellow", "cat"]
LONG = " ".join(words[i % 12] for i in range(90))
PROMPTS = [
    "", "a red heart on a blue background", "a (red) heart", "a (red:1.4) heart on a [blue] background", "(a red fox:0.5), ((moon))",
    "a red heart BREAK a blue background", "BREAK", "a (red:0) fox", "a red fox \\(animal\\)", LONG, LONG + " (yellow:1.3)", "(" + LONG + ":1.2) BREAK [a cat]",
    ", ".join(words * 7), "(" + ", ".join(words * 5) + ":1.1), a house, (tree:0.7)", "a, " * 40 + "(blue star)", "a red heart BREAK BREAK a cat",
    "(((((a red fox", "a cat,,,,, (,:1.5)",
]


def chunks_of(prompt):
    chunks, ids, weights, comma = [], [], [], -1
    for text, weight in space["parse_prompt_attention"](prompt):
        if (text, weight) == ("BREAK", -1):
            chunks.append((ids, weights)); ids, weights, comma = [], [], -1
            continue
        for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
            if token == COMMA:
                comma = len(ids)
            elif len(ids) == ROOM and comma != -1 and len(ids) - comma <= BACKTRACK:
                chunks.append((ids[:comma + 1], weights[:comma + 1])); ids, weights, comma = ids[comma + 1:], weights[comma + 1:], -1
            if len(ids) == ROOM:
                chunks.append((ids, weights)); ids, weights, comma = [], [], -1
            ids.append(token); weights.append(weight)
    if ids or not chunks:
        chunks.append((ids, weights))
    return chunks


def embed(ids, weights):
    ids = [BOS] + ids + [EOS] * (ROOM + 1 - len(ids))
    weights = np.array([1.0] + weights + [1.0] * (ROOM + 1 - len(weights)), np.float32)
    z = session.run(None, {"input_ids": np.array([ids], np.int32)})[0]
    return emphasise(z, weights), z.mean(dtype=np.float64) / np.sqrt((z.astype(np.float64) ** 2).mean())


def emphasise(z, weights):
    before, rms = z.mean(dtype=np.float64), np.sqrt((z.astype(np.float64) ** 2).mean())
    z = z * weights[None, :, None]
    # Here we differ from A1111: the mean of the default model's embeddings is almost 0, so a ratio of two means is noise.
    return z if abs(before) < 0.01 * rms else (z * np.float32(before / z.mean(dtype=np.float64))).astype(np.float32)


assert tokenizer.model_max_length == ROOM + 2 and len(tokenizer(LONG, add_special_tokens=False)["input_ids"]) > ROOM
cases = []
for prompt in PROMPTS:
    chunks = chunks_of(prompt)
    embedded = [embed(*chunk) for chunk in chunks]
    print(f"{prompt[:40]!r}: {[len(c[0]) for c in chunks]}, means {[f'{m:.4f}' for _, m in embedded]}")
    cases.append(json.dumps({"prompt": prompt, "ids": [ids for ids, _ in chunks],
                             "values": [[float(f"{x:.8g}") for x in z.ravel()[::41]] for z, _ in embedded]}))
# An embedding whose mean is a tenth of its deviation, as CLIP's is. Here the mean is restored.
z = np.random.default_rng(1).normal(-0.1, 1, (1, 6, 8)).astype(np.float32)
weights = np.array([1, 1.4, 0.5, 0, 1, 1], np.float32)
mean = json.dumps({"z": z.ravel().tolist(), "weights": weights[1:4].tolist(), "emphasised": emphasise(z, weights).ravel().tolist()})
# clip_skip 1, 2 and 3: earlier layers also pass the final layer norm, as in A1111 and diffusers.
graph = onnx.load(os.path.join(GRAPHS, "text_encoder", "model.onnx"))
layers = [f"/m/encoder/layers.{layer}/Add_1_output_0" for layer in (2, 1, 0)]
graph.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in layers)
norm = {"weight" if "weight" in t.name else "bias": onnx.numpy_helper.to_array(t).astype(np.float64) for t in graph.graph.initializer if "final_layer_norm" in t.name}
all_layers = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
skips = []
for prompt in ["", "a red heart on a blue background"]:
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids = [BOS] + ids + [EOS] * (ROOM + 1 - len(ids))
    last, *hidden = all_layers.run(None, {"input_ids": np.array([ids], np.int32)})
    hidden = [h.astype(np.float64) for h in hidden]
    hidden = [(h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5) * norm["weight"] + norm["bias"] for h in hidden]
    assert np.abs(hidden[0] - last).max() < 1e-4
    skips.append(json.dumps({"prompt": prompt, "values": [[float(f"{x:.8g}") for x in h.ravel()[::41]] for h in hidden]}))
open(os.path.join(HERE, "embedding.json"), "w").write('{"mean": ' + mean + ',\n"clip_skip": [\n' + ",\n".join(skips) + '],\n"prompts": [\n' + ",\n".join(cases) + "\n]}\n")
