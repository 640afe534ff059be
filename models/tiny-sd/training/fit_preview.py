"""Fits the map from latents to colours that previews are made with, and writes it into ../stablehand.json.

A preview shows each latent as one pixel: rgb = latents @ factors + bias, in -1..1. Factors and bias are the least-squares
fit to what the decoder makes of the same latents, averaged over each latent's 8x8 pixels. The latents are those that the
model itself draws for the concepts it was trained on.

usage: fit_preview.py [pictures, default 240]
"""
import json, os, sys
import numpy as np, onnxruntime as ort, torch
from transformers import CLIPTokenizer
from diffusers import EulerDiscreteScheduler

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.dirname(HERE)
GRAPHS = os.path.join(MODEL, "..", "..", "tests", "models", "tiny-sd-onnx")
COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 240
COLORS = ["white", "red", "green", "blue", "yellow", "orange", "purple", "pink", "brown", "gray", "black"]


def draw(prompts, load, scale, steps=12, guidance=4.0, batch=16):
    """Scaled latents and decoded pictures of `prompts`."""
    text, unet, decoder = load("text_encoder"), load("unet"), load("vae_decoder")
    tokenizer = CLIPTokenizer.from_pretrained(f"{MODEL}/tokenizer")
    config = json.load(open(f"{MODEL}/scheduler/scheduler_config.json"))
    for k in range(0, len(prompts), batch):
        part = prompts[k:k + batch]
        ids = tokenizer([""] * len(part) + part, padding="max_length", max_length=77, truncation=True, return_tensors="np").input_ids
        embeddings = text.run(None, {"input_ids": ids.astype(np.int32)})[0]
        scheduler = EulerDiscreteScheduler.from_config(config)
        scheduler.set_timesteps(steps)
        x = torch.randn(len(part), 4, 16, 16, generator=torch.Generator().manual_seed(k)) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            model_input = scheduler.scale_model_input(x, t).numpy()
            feed = {"sample": np.concatenate([model_input] * 2), "timestep": np.full(2 * len(part), float(t), np.float32),
                    "encoder_hidden_states": embeddings}
            negative, positive = np.split(unet.run(None, feed)[0], 2)
            x = scheduler.step(torch.from_numpy(negative + guidance * (positive - negative)), t, x).prev_sample
        latents = x.numpy()
        yield latents, decoder.run(None, {"latent_sample": latents / scale})[0].clip(-1, 1)


def main():
    load = lambda part: ort.InferenceSession(f"{GRAPHS}/{part}/model.onnx", providers=["CPUExecutionProvider"])
    scale = json.load(open(f"{MODEL}/vae/config.json"))["scaling_factor"]
    names = []
    for line in open(f"{HERE}/concepts.txt"):
        slug, _, captions = line.partition("=")
        if slug.strip() and line[0] != "#":
            names.append(captions.split(",")[0].strip() or slug.strip().replace("-", " "))
    picked = np.random.default_rng(1).permutation(names)[:COUNT]
    prompts = [f"{name} on a {COLORS[i % len(COLORS)]} background" for i, name in enumerate(picked)]
    rows, colors = [], []
    for latents, pictures in draw(prompts, load, scale):
        n, _, h, w = latents.shape
        rows.append(latents.transpose(0, 2, 3, 1).reshape(-1, 4))
        colors.append(pictures.reshape(n, 3, h, 8, w, 8).mean((3, 5)).transpose(0, 2, 3, 1).reshape(-1, 3))
    rows, colors = np.concatenate(rows), np.concatenate(colors)
    design = np.concatenate([rows, np.ones((len(rows), 1))], 1)
    fit, *_ = np.linalg.lstsq(design, colors, rcond=None)
    residual = colors - design @ fit
    r2 = 1 - (residual ** 2).sum(0) / ((colors - colors.mean(0)) ** 2).sum(0)
    print(f"{len(rows)} latents of {len(prompts)} pictures; R2 by channel {r2.round(3).tolist()}, rms {np.sqrt((residual ** 2).mean()):.3f} of 2")
    path = f"{MODEL}/stablehand.json"
    config = json.load(open(path))
    config["latent_rgb_factors"] = fit[:4].round(4).tolist()
    config["latent_rgb_bias"] = fit[4].round(4).tolist()
    with open(path, "w") as file:
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in config.items()]
        file.write("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
