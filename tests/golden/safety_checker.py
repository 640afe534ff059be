"""Writes safety_checker/: a small safety checker with random weights, and what diffusers' StableDiffusionSafetyChecker says with it.

    python tests/golden/safety_checker.py                 # needs diffusers, transformers, torch, onnxruntime, Pillow
    python tests/golden/safety_checker.py --full FOLDER   # the same at full size, 600 MB, with no graph of its own

The pictures are a formula, which the test computes again. `scores.json` holds each picture's scores (three concepts for special
care, then the others) and diffusers' verdict. The thresholds lie between the pictures, so that about half of them are flagged.
"""
import argparse, json, os, subprocess, sys
import numpy as np, torch
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker, cosine_distance

HERE = os.path.dirname(os.path.abspath(__file__))
GRAPHS = os.path.join(HERE, "..", "..", "models", "graphs")
SMALL = dict(projection_dim=16, vision_config=dict(hidden_act="quick_gelu", hidden_size=32, image_size=32, intermediate_size=64,
             layer_norm_eps=1e-5, num_attention_heads=4, num_channels=3, num_hidden_layers=2, patch_size=8))
PICTURES, WIDTH, HEIGHT = 16, 96, 64


def picture(k):
    y, x, c = np.mgrid[0:HEIGHT, 0:WIDTH, 0:3].astype(np.int64)
    return Image.fromarray(((x * (k % 5 + 1) // (c + 1) + y * (k // 5 + 1) + 60 * k * (c + 1)) % 256).astype(np.uint8))


def checker(config):
    torch.manual_seed(3)
    made = StableDiffusionSafetyChecker(CLIPConfig(**config))
    with torch.no_grad():
        for name, p in made.named_parameters():
            if p.ndim > 1:
                p.normal_(std=0.3 if "position" in name else 1.3 * float(np.prod(p.shape[1:])) ** -0.5)
            else:
                p.normal_(mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.1)
            p.copy_(p.half())
    return made.eval().requires_grad_(False)


def main():
    given = argparse.ArgumentParser()
    given.add_argument("--full")
    full = given.parse_args().full
    out = full or os.path.join(HERE, "safety_checker")
    config = json.load(open(os.path.join(GRAPHS, "sd-v1", "safety_checker", "config.json"))) if full else SMALL
    made = checker(config)
    side = config["vision_config"]["image_size"]
    pictures = [picture(k) for k in range(PICTURES)]
    processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    seen = torch.from_numpy(np.stack([processor(p, return_tensors="np")["pixel_values"][0] for p in pictures]))

    embedding = made.visual_projection(made.vision_model(seen)[1])
    parts = ("special_care_embeds", "concept_embeds")
    cosines = [cosine_distance(embedding, getattr(made, part)) for part in parts]
    # In the middle between two pictures, so that rounding decides nothing: a third of the pictures need special care by the first
    # concept, and one picture is near each of the first ten others.
    for part, values, near, place in zip(parts, cosines, (1, 10), (PICTURES * 2 // 3, PICTURES - 1)):
        ordered = values.sort(0).values
        thresholds = ordered[-1] + 0.05
        thresholds[:near] = (ordered[place - 1, :near] + ordered[place, :near]) / 2
        getattr(made, f"{part}_weights").copy_(thresholds.half().float())
    scores = torch.cat([values - getattr(made, f"{part}_weights") for part, values in zip(parts, cosines)], 1)
    _, flagged = made(clip_input=seen, images=[np.zeros((1, 1, 3)) for _ in pictures])
    print("flagged:", sum(flagged), "of", PICTURES, "nearest score to 0:", float(scores.abs().min()), float((scores + 0.01).abs().min()))

    os.makedirs(os.path.join(out, "safety_checker"), exist_ok=True)
    # The names that Stable Diffusion v1's folders have; newer transformers leave out a level.
    state = {("vision_model." + n if n.startswith("vision_model.") else n): p.half().contiguous() for n, p in made.state_dict().items()}
    save_file(state, os.path.join(out, "safety_checker", "model.safetensors"))
    with open(os.path.join(out, "safety_checker", "config.json"), "w") as file:
        json.dump(config, file, indent=2)
    with open(os.path.join(out, "scores.json"), "w") as file:
        rows = [dict(scores=[round(float(s), 6) for s in row], flagged=bool(f)) for row, f in zip(scores, flagged)]
        file.write("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    if not full:
        build = [sys.executable, os.path.join(GRAPHS, "build.py"), out, "--only", "safety_checker", "--build", "cpu"]
        subprocess.run(build, check=True)


if __name__ == "__main__":
    main()
