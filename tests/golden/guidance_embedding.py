"""Writes guidance_embedding.json: diffusers' embedding of some guidance scales, as [scale, width, values].

    pip install diffusers==0.42.1 transformers torch
    python tests/golden/guidance_embedding.py
"""
import json, os
import torch
from diffusers import LatentConsistencyModelPipeline

HERE = os.path.dirname(os.path.abspath(__file__))
out = []
for scale, width in ((1.0, 256), (1.5, 256), (7.5, 256), (8.5, 16), (4.25, 9)):
    # The pipelines subtract 1.
    embedding = LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, torch.tensor([scale - 1]), embedding_dim=width)
    out.append([scale, width, [round(float(v), 6) for v in embedding[0]]])
with open(os.path.join(HERE, "guidance_embedding.json"), "w") as file:
    file.write("[\n" + ",\n".join(json.dumps(line) for line in out) + "\n]\n")
