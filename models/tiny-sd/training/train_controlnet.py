"""Step 5: a ControlNet that follows edges, for the built-in model. The model itself is not changed.

usage: train_controlnet.py MINUTES OUT.safetensors

It starts as a copy of the UNet's encoder, as diffusers' trainer does, and learns from the same pictures and captions as the
UNet, with the edges that `canny` finds in each. It needs prepare_data.py's output alone; the networks come from the model's
folder. The names in the file are diffusers'.
"""
import random, sys, time
import numpy as np, torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextModel
from common import *
from captions import caption
from models import *

MINUTES, OUT = float(sys.argv[1]), sys.argv[2]
BATCH, LR, DROP, PLAIN_SHARE = 24, 1e-3, 0.30, 0.50


def canny(picture, low=100, high=200):
    """Edges one pixel wide, as OpenCV's `Canny` finds them in the grey picture: 0 or 255."""
    grey = picture.astype(np.float32) @ np.array([.299, .587, .114], np.float32)
    p = np.pad(grey, 1, mode="edge")
    gx = (p[:-2, 2:] + 2 * p[1:-1, 2:] + p[2:, 2:]) - (p[:-2, :-2] + 2 * p[1:-1, :-2] + p[2:, :-2])
    gy = (p[2:, :-2] + 2 * p[2:, 1:-1] + p[2:, 2:]) - (p[:-2, :-2] + 2 * p[:-2, 1:-1] + p[:-2, 2:])
    size = np.abs(gx) + np.abs(gy)
    m = np.pad(size, 1)
    at = lambda dy, dx: m[1 + dy:1 + dy + size.shape[0], 1 + dx:1 + dx + size.shape[1]]
    ax, ay = np.abs(gx), np.abs(gy)
    flat, steep = ay < ax * .41421356, ay > ax * 2.41421356
    up = (gx < 0) ^ (gy < 0)
    is_top = np.where(flat, (size > at(0, -1)) & (size >= at(0, 1)), np.where(
        steep, (size > at(-1, 0)) & (size >= at(1, 0)), np.where(
            up, (size > at(-1, 1)) & (size > at(1, -1)), (size > at(-1, -1)) & (size > at(1, 1)))))
    edges, weak = is_top & (size > high), is_top & (size > low)
    while True:
        q = np.pad(edges, 1)
        near = sum(q[1 + dy:1 + dy + size.shape[0], 1 + dx:1 + dx + size.shape[1]] for dy in (-1, 0, 1) for dx in (-1, 0, 1)) > 0
        grown = near & weak | edges
        if (grown == edges).all(): return (edges * 255).astype(np.uint8)
        edges = grown


def make_pool(rgba, items, vae, scale, count, rng):
    """Pictures as the UNet saw them, and larger, moved and mirrored: latents, edges, and what each shows."""
    base = [i for i, it in enumerate(items) if it["color"] is None]
    painted = [i for i, it in enumerate(items) if it["color"] is not None]
    colours = [c for c in BACKGROUNDS if c != "white"]
    latents, hints, shown = [], [], []
    for k in range(0, count, 64):
        pictures = []
        for _ in range(min(64, count - k)):
            i = rng.choice(painted) if rng.random() < .28 else rng.choice(base)
            others = [c for c in colours if c != items[i]["color"]]
            c = "white" if rng.random() < PLAIN_SHARE and items[i]["color"] != "white" else rng.choice(others)
            picture = composite(rgba[i], c, rng.uniform(.6, 1.0), rng.randint(-14, 14), rng.randint(-14, 14))
            if rng.random() < .5: picture = picture[:, ::-1]
            pictures.append(picture)
            hints.append(canny(picture))
            shown.append((items[i]["names"], None if c == "white" else c))
        with torch.no_grad():
            latents.append((vae.encode(to_tensor(np.stack(pictures))).latent_dist.mean * scale).half())
    return torch.cat(latents), torch.from_numpy(np.stack(hints)), shown


def main():
    torch.manual_seed(0); rng = random.Random(0)
    rgba, items = load_items()
    vae = AutoencoderKL.from_pretrained(f"{MODEL}/vae", variant="fp16", torch_dtype=torch.float32).eval()
    unet = UNet2DConditionModel.from_pretrained(f"{MODEL}/unet", variant="fp16", torch_dtype=torch.float32).requires_grad_(False)
    text = CLIPTextModel.from_pretrained(f"{MODEL}/text_encoder", variant="fp16", torch_dtype=torch.float32).requires_grad_(False).eval()
    tok = build_tokenizer()
    started = time.time()
    lat, hints, shown = make_pool(rgba, items, vae, vae.config.scaling_factor, 4000, rng)
    print("pool", lat.shape, f"{time.time() - started:.0f}s", flush=True)
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(16, 32, 96, 256))
    net.requires_grad_(True).train()
    unet.set_attn_processor(PlainAttention()); net.set_attn_processor(PlainAttention())
    print("params %.2fM" % (sum(p.numel() for p in net.parameters()) / 1e6), flush=True)
    opt = torch.optim.AdamW(net.parameters(), LR, betas=(.9, .99), weight_decay=.01)
    betas = torch.linspace(SCHEDULE["beta_start"] ** .5, SCHEDULE["beta_end"] ** .5, 1000) ** 2
    ac = torch.cumprod(1 - betas, 0)
    snr = ac / (1 - ac)
    weight = (5 / snr).clamp(max=1) / ac.sqrt().clamp(min=.2)
    started, step, run = time.time(), 0, 0.0
    while (done := (time.time() - started) / (MINUTES * 60)) < 1:
        for group in opt.param_groups: group["lr"] = LR * min(1, (step + 1) / 50) * (.02 + .98 * .5 * (1 + np.cos(np.pi * done)))
        rows = [rng.randrange(len(shown)) for _ in range(BATCH)]
        words = ["" if rng.random() < DROP else caption(*shown[row], rng) for row in rows]
        x = lat[rows].float()
        hint = (hints[rows].float() / 255)[:, None].expand(-1, 3, -1, -1)
        # Edges matter where the picture is still open.
        t = ((torch.arange(BATCH) + torch.rand(BATCH)) / BATCH * .9 + .1).mul(999).long()
        noise = torch.randn_like(x) + .25 * torch.randn(BATCH, 4, 1, 1)
        a = ac[t][:, None, None, None]
        xt = a.sqrt() * x + (1 - a).sqrt() * noise
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad(): context = encode_text(tok, text, words)
            down, mid = net(xt, t, context, hint, return_dict=False)
            pred = unet(xt, t, context, down_block_additional_residuals=down, mid_block_additional_residual=mid).sample
        loss = ((pred.float() - noise).pow(2).mean((1, 2, 3)) * weight[t]).mean()
        opt.zero_grad(set_to_none=True); loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
        step += 1; run += loss.item()
        if step % 25 == 0:
            print(f"step {step} loss {run / 25:.4f} {time.time() - started:.0f}s", flush=True); run = 0.0
        if step % 100 == 0 or time.time() - started > MINUTES * 60:
            save_file({name: value.half().contiguous() for name, value in net.state_dict().items()}, OUT)
    save_file({name: value.half().contiguous() for name, value in net.state_dict().items()}, OUT)
    print("steps", step)


if __name__ == "__main__":
    main()
