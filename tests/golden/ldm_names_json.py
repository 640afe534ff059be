"""Writes ldm_names.json: the original's name for each parameter of Stable Diffusion v1's graphs and of models/tiny-sd.

The names come from ldm_names.py. make_sd15.py checks that diffusers' own reader understands them.
"""
import json
from pathlib import Path

import onnx

import ldm_names

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent.parent / "models"
GRAPHS = [("text_encoder", "text_encoder"), ("unet", "unet"), ("vae", "vae_decoder"), ("vae", "vae_encoder")]


def names(graphs, configs):
    """part/name of every parameter -> the original's name."""
    found = {}
    for part, graph in GRAPHS:
        config = json.loads((configs / part / "config.json").read_text())
        for tensor in onnx.load(graphs / f"{graph}.cpu.onnx", load_external_data=False).graph.initializer:
            if tensor.external_data:
                name = tensor.name
                found[f"{part}/{name}"] = {
                    "text_encoder": lambda: ldm_names.text_encoder(name.removeprefix("text_model.")),
                    "unet": lambda: ldm_names.unet(name, config),
                    "vae": lambda: ldm_names.vae(name, config),
                }[part]()
    return found


written = {
    "tiny-sd": names(MODELS / "tiny-sd" / "graphs", MODELS / "tiny-sd"),
    "sd-v1": names(MODELS / "graphs" / "sd-v1", MODELS / "graphs" / "sd-v1"),
}
(HERE / "ldm_names.json").write_text(json.dumps(written, indent=0, sort_keys=True) + "\n")
