"""Distils the decoder into a tiny one: diffusers' AutoencoderTiny, 16 features wide, without its encoder.

The tiny decoder learns what the full one makes of latents that the model itself draws for the concepts it was trained on. The loss
is the VAE's own (train_vae.py): pixels, reduced pictures and first differences.

usage: distil_vae.py draw COUNT           # draws COUNT latents, with the full decoder's pictures, into WORK/distil.npz
       distil_vae.py train MINUTES [--resume]
                                          # ../vae_tiny/diffusion_pytorch_model.fp16.safetensors, and WORK/distil.png to look at
"""
import json, math, os, sys, time
import numpy as np, torch
from diffusers import AutoencoderTiny, EulerDiscreteScheduler, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.dirname(HERE)
WORK = os.environ.get("WORK", os.path.join(HERE, "data"))
OUT = f"{MODEL}/vae_tiny/diffusion_pytorch_model.fp16.safetensors"
COLORS = ["white", "red", "green", "blue", "yellow", "orange", "purple", "pink", "brown", "gray", "black"]
STEPS, GUIDANCE, BATCH = 10, 4.0, 16
# The last ones are for looking and measuring only.
HELD_OUT = 64
NOISE = 0.03
# Latents along a side of what one step sees, and the latents at a cut edge that do not count.
CROP, RIM = 10, 1


def recon_loss(y, x):
    """train_vae.py's."""
    d = y - x
    loss = d.abs().mean() + 0.5 * d.pow(2).mean()
    loss = loss + (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()
    for k in (2, 4, 8): loss = loss + 0.5 * torch.nn.functional.avg_pool2d(d, k).abs().mean()
    return loss


def concepts():
    for line in open(f"{HERE}/concepts.txt"):
        slug, _, captions = line.partition("=")
        if slug.strip() and line[0] != "#":
            yield captions.split(",")[0].strip() or slug.strip().replace("-", " ")


@torch.no_grad()
def draw(count):
    os.makedirs(WORK, exist_ok=True)
    pipe = StableDiffusionPipeline.from_pretrained(MODEL, variant="fp16", torch_dtype=torch.float32, safety_checker=None, local_files_only=True)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    names, rng = list(concepts()), np.random.default_rng(7)
    order = np.concatenate([rng.permutation(len(names)) for _ in range(-(-count // len(names)))])[:count]
    prompts = [f"{names[i]} on a {COLORS[k % len(COLORS)]} background" if k % 3 else names[i] for k, i in enumerate(order)]
    latents, pictures = [], []
    for k in range(0, count, BATCH):
        part = prompts[k:k + BATCH]
        generators = [torch.Generator().manual_seed(k + i) for i in range(len(part))]
        z = pipe(part, num_inference_steps=STEPS, guidance_scale=GUIDANCE, width=128, height=128, generator=generators, output_type="latent").images
        latents.append(z.numpy())
        x = pipe.vae.decode(z / pipe.vae.config.scaling_factor).sample.clamp(-1, 1)
        pictures.append(((x + 1) * 127.5).round().byte().numpy())
        print(f"{k + len(part)} of {count}", flush=True)
    np.savez(f"{WORK}/distil.npz", latents=np.concatenate(latents), pictures=np.concatenate(pictures))


def train(minutes, resume):
    torch.manual_seed(0)
    rng, data = np.random.default_rng(0), np.load(f"{WORK}/distil.npz")
    z = torch.from_numpy(data["latents"]).float()
    x = torch.from_numpy(data["pictures"]).float() / 127.5 - 1
    seen = len(z) - HELD_OUT
    vae = AutoencoderTiny.from_config(json.load(open(f"{MODEL}/vae_tiny/config.json"))).to(memory_format=torch.channels_last)
    if resume: vae.load_state_dict(load_file(OUT), strict=False)
    params = list(vae.decoder.parameters())
    average = [p.detach().clone() for p in params]
    rate = 1e-3 if resume else 3e-3
    opt = torch.optim.AdamW(params, rate, betas=(0.9, 0.99), weight_decay=1e-4)
    t0, step, run = time.time(), 0, 0.0
    while (share := (time.time() - t0) / (minutes * 60)) < 1:
        for group in opt.param_groups: group["lr"] = rate * min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        picked, (top, left) = rng.integers(0, seen, BATCH), rng.integers(0, z.shape[-1] - CROP + 1, 2)
        part = z[picked, :, top:top + CROP, left:left + CROP]
        noisy = part + NOISE * torch.randn_like(part)
        y = vae.decode(noisy.to(memory_format=torch.channels_last)).sample
        # At an edge that is a cut, the full decoder saw more.
        inner = [slice(8 * RIM * (at > 0), 8 * (CROP - RIM * (at + CROP < z.shape[-1]))) for at in (top, left)]
        wanted = x[picked, :, 8 * top:8 * (top + CROP), 8 * left:8 * (left + CROP)]
        loss = recon_loss(y[..., inner[0], inner[1]], wanted[..., inner[0], inner[1]])
        opt.zero_grad(set_to_none=True); loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        opt.step()
        torch._foreach_lerp_(average, [p.detach() for p in params], 1 - min(0.995, (step + 1) / (step + 10)))
        step += 1; run += loss.item()
        if step % 100 == 0:
            print(f"step {step} loss {run / 100:.4f} {time.time() - t0:.0f}s", flush=True)
            run = 0.0
    with torch.no_grad():
        for p, a in zip(params, average): p.copy_(a)
        vae.half().float()  # as it is stored
        y = torch.cat([vae.decode(part).sample for part in z[seen:].split(16)]).clamp(-1, 1)
    squares = ((y - x[seen:]) / 2).pow(2).mean((1, 2, 3))
    print(f"steps {step}; {HELD_OUT} pictures not seen: PSNR of each {(-10 * squares.log10()).mean():.2f}, worst {(-10 * squares.max().log10()):.2f} dB")
    rows = [torch.cat([torch.cat([x[seen + i], y[i]], 1) for i in range(r, r + 12)], 2) for r in range(0, 48, 12)]
    Image.fromarray(((torch.cat(rows, 1) + 1) * 127.5).byte().permute(1, 2, 0).numpy()).save(f"{WORK}/distil.png")
    save_file({k: v.half().contiguous() for k, v in vae.state_dict().items() if k.startswith("decoder.")}, OUT, {"format": "pt"})


if __name__ == "__main__":
    if sys.argv[1] == "draw": draw(int(sys.argv[2]))
    else: train(float(sys.argv[2]), "--resume" in sys.argv)
