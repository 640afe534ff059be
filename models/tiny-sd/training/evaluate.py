"""Step 5: sample through ONNX Runtime, write contact sheets to samples/, print the measured figures.

usage: evaluate.py [folder] [--quick]
"""
import json, os, random, sys, time
import numpy as np, onnxruntime as ort, torch
from transformers import CLIPTokenizer
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler, DDIMScheduler
from common import *
from models import sheet, HERE, MODEL
from prepare_data import BACKGROUNDS, article

ARGS = [a for a in sys.argv[1:] if not a.startswith("-")]
ROOT = ARGS[0] if ARGS else MODEL
QUICK = "--quick" in sys.argv
SAMPLES = f"{HERE}/samples"
SCHEDULERS = {
    "dpm": lambda c: DPMSolverMultistepScheduler.from_config(c, algorithm_type="dpmsolver++", solver_order=2),
    "euler": lambda c: EulerDiscreteScheduler.from_config(c), "ddim": lambda c: DDIMScheduler.from_config(c)}


class Pipeline:
    """The whole text-to-image loop on ONNX Runtime only; schedulers come from diffusers."""
    def __init__(self, root, threads=2):
        o = ort.SessionOptions(); o.intra_op_num_threads = threads
        load = lambda n: ort.InferenceSession(f"{root}/{n}/model.onnx", o, providers=["CPUExecutionProvider"])
        t = time.time()
        self.text, self.unet, self.dec = load("text_encoder"), load("unet"), load("vae_decoder")
        self.load_s = time.time() - t
        self.tok = CLIPTokenizer.from_pretrained(f"{root}/tokenizer")
        self.sched = json.load(open(f"{root}/scheduler/scheduler_config.json"))
        self.scale = json.load(open(f"{root}/vae_decoder/config.json"))["scaling_factor"]

    def __call__(self, prompts, steps=20, guidance=4.0, size=128, seed=0, kind="dpm", negative="", batch=16):
        out = []
        for k in range(0, len(prompts), batch):
            part = prompts[k:k + batch]; n = len(part)
            ids = self.tok([negative] * n + part, padding="max_length", max_length=77, truncation=True, return_tensors="np").input_ids.astype(np.int32)
            ctx = self.text.run(None, {"input_ids": ids})[0]
            sch = SCHEDULERS[kind](self.sched); sch.set_timesteps(steps)
            x = torch.cat([torch.randn(1, 4, size // 8, size // 8, generator=torch.Generator().manual_seed(seed + k + i)) for i in range(n)]) * sch.init_noise_sigma
            for t in sch.timesteps:
                xi = sch.scale_model_input(x, t).numpy()
                e = self.unet.run(None, {"sample": np.concatenate([xi, xi]), "timestep": np.full(2 * len(xi), float(t), np.float32), "encoder_hidden_states": ctx})[0]
                eps = torch.from_numpy(e[:n] + guidance * (e[n:] - e[:n]))
                x = sch.step(eps, t, x).prev_sample
            out.append(self.dec.run(None, {"latent_sample": (x / self.scale).numpy().astype(np.float32)})[0])
        return torch.from_numpy(np.concatenate(out)).clamp(-1, 1)


def small(img01, n=32):
    """(B,3,H,W) in 0..1 -> flat n x n thumbnails for the nearest-neighbour search."""
    return torch.nn.functional.adaptive_avg_pool2d(img01, n).flatten(1)


def retrieval(pipe, guidance, count=200, kind="dpm", steps=20):
    """Prompt with the main name of a concept; is that concept's own picture the nearest of all concepts?"""
    rgba, items = load_items(); base = [i for i, it in enumerate(items) if it["color"] is None]
    gallery = small(torch.from_numpy(np.stack([composite(rgba[i], "white") for i in base])).permute(0, 3, 1, 2).float() / 255)
    pick = sorted(random.Random(7).sample(range(len(base)), min(count, len(base))))
    img = pipe([(n if n.endswith("s") else article(n)) for n in (items[base[i]]["names"][0] for i in pick)], guidance=guidance, kind=kind, steps=steps)
    d = torch.cdist(small((img + 1) / 2), gallery)
    rank = (d < d[torch.arange(len(pick)), pick][:, None]).sum(1)
    return (rank == 0).float().mean().item(), (rank < 5).float().mean().item(), [items[base[pick[i]]]["names"][0] for i in range(len(pick)) if rank[i] >= 5]


def border_color(img):
    """Median of a 5-pixel frame, named by the nearest background colour."""
    a = ((img + 1) * 127.5)
    frame = torch.cat([a[:, :5].flatten(1), a[:, -5:].flatten(1), a[:, :, :5].flatten(1), a[:, :, -5:].flatten(1)], 1).median(1).values.numpy()
    return min(BACKGROUNDS, key=lambda c: np.square(np.array(BACKGROUNDS[c]) - frame).sum())


def backgrounds(pipe, guidance, count=110):
    _, items = load_items(); names = [it["names"][0] for it in items if it["color"] is None]
    r = random.Random(3); asks = [(r.choice(names), c) for c in list(BACKGROUNDS) * (count // len(BACKGROUNDS))]
    img = pipe([f"{article(n)} on a {c} background" for n, c in asks], guidance=guidance)
    got = [border_color(i) for i in img]
    return np.mean([g == c for g, (_, c) in zip(got, asks)]), [(n, c, g) for g, (n, c) in zip(got, asks) if g != c]


def paints(pipe, guidance):
    """'a purple car' and the like: is the painted render (of all 11 colours) the nearest one?"""
    rgba, items = load_items(); pick = random.Random(5).sample([i for i, it in enumerate(items) if it["color"] not in (None, "white")], 100)
    img = small((pipe([article(items[i]["names"][0]) for i in pick], guidance=guidance) + 1) / 2)
    ok = 0
    for k, i in enumerate(pick):
        same = [j for j, it in enumerate(items) if it["slug"] == items[i]["slug"] and it["color"]]
        g = small(torch.from_numpy(np.stack([composite(rgba[j], "white") for j in same])).permute(0, 3, 1, 2).float() / 255)
        ok += same[torch.cdist(img[k:k + 1], g).argmin()] == i
    return ok / len(pick)


BASIC = ["a red heart on a blue background", "a dog", "a cat", "a house", "an apple", "a green apple", "a purple car", "a blue car on a yellow background",
         "a pizza", "the sun", "a tree", "a rocket on a black background", "a fish", "a happy face", "a banana on a pink background", "a star on a purple background",
         "a snowman", "a hamburger", "a bicycle", "a guitar", "a red circle on a green background", "a blue square", "an airplane", "a panda",
         "a lion", "a butterfly", "a cup of coffee", "a yellow umbrella on a gray background", "a penguin on an orange background", "a castle", "a robot", "a mushroom on a green background",
         "a sunflower", "a skull on a black background", "a ghost on a purple background", "a pink dragon", "a soccer ball", "a clock", "a book", "a key on a red background"]
FREE = ["a photo of a cat sitting on a sofa", "two cats", "a beautiful mountain landscape", "cute puppy", "a knight with a sword", "a green dog on a red background", "a blue banana", "a dog and a cat",
        "a portrait of a woman", "an astronaut riding a horse", "a bowl of fruit", "sports car", "ein rotes Herz", "", "A RED HEART!!!", "asdf qwerty"]


def main():
    os.makedirs(SAMPLES, exist_ok=True)
    pipe = Pipeline(ROOT)
    sheet(pipe(BASIC), BASIC, f"{SAMPLES}/basic.png")
    if QUICK: return
    _, items = load_items(); names = [it["names"][0] for it in items if it["color"] is None]
    some = random.Random(11).sample(names, 96); prompts = [n if n.endswith("s") else article(n) for n in some]
    sheet(pipe(prompts), prompts, f"{SAMPLES}/random96.png", cols=12)
    sheet(pipe(FREE), FREE, f"{SAMPLES}/free_prompts.png")
    grid = [f"a {n} on a {c} background" for n in ("red heart", "cat", "car") for c in BACKGROUNDS]
    sheet(pipe(grid), grid, f"{SAMPLES}/backgrounds.png", cols=11)
    grid = [f"a {c} {n}" for n in ("car", "star", "cat", "flower") for c in list(BACKGROUNDS)]
    sheet(pipe(grid), grid, f"{SAMPLES}/paints.png", cols=11)
    seeds = [p for p in ("a cat", "a house on a green background", "a red apple") for _ in range(8)]
    sheet(pipe(seeds, seed=100), seeds, f"{SAMPLES}/seeds.png")
    sheet(pipe(BASIC[:8], size=256, batch=4), BASIC[:8], f"{SAMPLES}/size256.png", cols=4)
    sheet(pipe(BASIC[:16], kind="euler"), BASIC[:16], f"{SAMPLES}/euler20.png")
    gs = [1.0, 2.5, 4.0, 7.5]; ps = ["a red heart on a blue background", "a cat", "a house", "a pizza", "a purple car", "a tree"]
    sheet(torch.cat([pipe(ps, guidance=g) for g in gs]), [f"g={g} {p}" for g in gs for p in ps], f"{SAMPLES}/guidance.png", cols=6)

    pipe(["a cat"])
    for size in (128, 256):
        t = time.time(); [pipe(["a cat"], size=size, seed=s) for s in range(4)]; print(f"time per image {size}px, 20 steps, CFG, 2 threads: {(time.time()-t)/4:.2f}s", flush=True)
    print(f"session load {pipe.load_s:.2f}s", flush=True)
    t1, t5, bad = retrieval(pipe, 4.0)
    print(f"retrieval guidance 4: top1 {t1:.3f} top5 {t5:.3f} (of {len(names)} concepts, 200 prompts)", flush=True)
    print("  not in the top 5:", ", ".join(bad), flush=True)
    acc, bad = backgrounds(pipe, 4.0); print(f"background colour accuracy (110 prompts, guidance 4): {acc:.3f}", bad, flush=True)
    print(f"object colour accuracy (100 prompts, guidance 4): {paints(pipe, 4.0):.3f}", flush=True)
    if "--more" in sys.argv:
        for g, kind in ((2.0, "dpm"), (6.0, "dpm"), (4.0, "euler"), (4.0, "ddim")):
            print(f"retrieval {kind} guidance {g}, 100 prompts: top1 %.3f top5 %.3f" % retrieval(pipe, g, 100, kind=kind)[:2], flush=True)


if __name__ == "__main__":
    main()
