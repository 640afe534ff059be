"""Writes one Stable Diffusion v1 model with random weights in every published form, and what diffusers draws with it.

    python make_sd15.py OUT             # full size: a few minutes, about 10 GB
    python make_sd15.py OUT --tiny      # models/tiny-sd's sizes: seconds, 200 MB
    python make_sd15.py OUT --tiny --weights ../../models/tiny-sd     # the same sizes with the trained weights

    OUT/ldm.safetensors                 original names, half, the VAE inside
    OUT/ldm.taesd.safetensors           a tiny VAE for it, of random weights
    OUT/ldm.bf16.safetensors            the same in bfloat16, and ldm.full.safetensors in full precision     (--all)
    OUT/ldm.ema.safetensors             with running averages, which have other values                       (--all)
    OUT/diffusers/                      safetensors per component, variant fp16
    OUT/diffusers.sharded/              without variant, full precision, the UNet in several files           (--all)
    OUT/onnx/                           the layout of optimum's exports: full precision, external data
    OUT/golden/                         latents by diffusers, float32 on the CPU: CASE.npy, cases.json, embeddings

Random weights are rounded so that half, bfloat16 and full precision hold the same values; so the goldens hold for every
form. --tiny implies --all. At the end it prints diffusers' own loading time and peak memory, each from its own process.
Needs models/graphs/requirements.txt and accelerate.
"""
import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent.parent / "models"
CASES = [
    {"scheduler": "DDIM", "prompt": "a photo of an astronaut riding a horse on mars", "negative_prompt": "blurry, low quality", "seed": 1234},
    {"scheduler": "EULER-D", "prompt": "a red heart on a blue background", "negative_prompt": "", "seed": 42},
]
STEPS, GUIDANCE = 4, 7.5


def quietly():
    """No progress bars and no advice: what is printed is the result."""
    import warnings

    import diffusers
    import transformers

    warnings.simplefilter("ignore")
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def peak_mb():
    """This process's peak memory. getrusage would count what the process that started this one held."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) >> 10


def measure(how, path, config):
    """In a process of its own: loads with diffusers in float32 and prints time and peak memory."""
    import torch
    from diffusers import StableDiffusionPipeline

    quietly()
    before, start = peak_mb(), time.perf_counter()
    common = {"torch_dtype": torch.float32, "local_files_only": True, "safety_checker": None}
    if how == "from_single_file":
        pipe = StableDiffusionPipeline.from_single_file(path, config=config, **common)
    else:
        pipe = StableDiffusionPipeline.from_pretrained(path, variant="fp16", **common)
    seconds, peak = time.perf_counter() - start, peak_mb()
    size = sum(p.numel() * p.element_size() for m in (pipe.unet, pipe.vae, pipe.text_encoder) for p in m.parameters())
    print(json.dumps({"how": how, "seconds": round(seconds, 2), "peak_mb": peak, "after_imports_mb": before, "weights_mb": size >> 20}))


def random_pipeline(folder):
    """StableDiffusionPipeline of the sizes in `folder`, weights drawn so that activations stay near 1."""
    import torch
    from diffusers import PNDMScheduler, StableDiffusionPipeline
    from transformers import CLIPTokenizer

    sys.path.insert(0, str(MODELS / "graphs"))
    import config
    import torch_models

    torch.manual_seed(0)
    modules = {
        "text_encoder": torch_models.text_encoder(config.text_encoder(folder)),
        "unet": torch_models.unet(config.unet(folder)),
        "vae": torch_models.vae(config.vae(folder)),
    }
    for module in modules.values():
        for p in module.parameters():
            p.copy_(p.to(torch.bfloat16).to(torch.float16))
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    scheduler = PNDMScheduler.from_pretrained(folder / "scheduler")
    return StableDiffusionPipeline(**modules, tokenizer=tokenizer, scheduler=scheduler, safety_checker=None, feature_extractor=None,
                                   requires_safety_checker=False)


def trained_pipeline(folder):
    """The pipeline of a diffusers folder with half-precision weights."""
    import torch
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(folder, variant="fp16", torch_dtype=torch.float32, local_files_only=True)


def ldm_state(pipe):
    """Original name -> tensor, as the whole checkpoint has them."""
    import torch

    import ldm_names

    state = {ldm_names.unet(k, pipe.unet.config): v for k, v in pipe.unet.state_dict().items()}
    for k, v in pipe.vae.state_dict().items():
        state[ldm_names.vae(k, pipe.vae.config)] = v[:, :, None, None] if ldm_names.is_vae_attention(k) else v
    state |= {ldm_names.text_encoder(k): v for k, v in pipe.text_encoder.state_dict().items()}
    # Other entries of published files, which loaders ignore.
    state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    state["alphas_cumprod"] = pipe.scheduler.alphas_cumprod.clone()
    return state


def save_ldm(state, path, dtype):
    from safetensors.torch import save_file

    save_file({k: v.to(dtype).contiguous() if v.is_floating_point() else v for k, v in state.items()}, path)


def save_tiny_vae(folder, path):
    """The decoder of a tiny VAE with random weights, under the original's names: its first layer only squeezes its input."""
    import torch
    from safetensors.torch import save_file

    sys.path.insert(0, str(MODELS / "graphs"))
    import config
    import torch_models

    layers = torch_models.vae_tiny(config.vae_tiny(folder)).decoder.layers.state_dict()
    state = {f"{int(number) + 1}.{rest}": v for (number, rest), v in ((k.split(".", 1), v) for k, v in layers.items())}
    save_file({k: v.to(torch.float16).contiguous() for k, v in state.items()}, path)


def with_averages(state):
    """The checkpoint with running averages beside the weights, of other values, so that a mix-up shows."""
    import torch

    import ldm_names

    averages = {ldm_names.ema(k): v * 0.5 for k, v in state.items() if k.startswith("model.diffusion_model.")}
    return state | averages | {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(1)}


def save_diffusers(pipe, out, everything, scheduler):
    """The folder with the variant fp16, and one that is sharded."""
    import torch
    from safetensors.torch import load_file, save_file

    modules = (pipe.text_encoder, pipe.unet, pipe.vae)
    if everything:
        pipe.save_pretrained(out / "diffusers.sharded", max_shard_size="5MB" if pipe.unet.num_parameters() < 10**7 else "1GB")
    for module in modules:
        module.half()
    pipe.save_pretrained(out / "diffusers", variant="fp16")
    for module in modules:
        module.to(torch.float32)
    for folder in out.glob("diffusers*"):
        # diffusers writes its defaults out. A timestep_spacing in the file would override the defaults of other schedulers; published files have none.
        shutil.copy(scheduler, folder / "scheduler/scheduler_config.json")
    # transformers 5 leaves out the prefix that every published text encoder has. The sharded folder keeps its form.
    path = out / "diffusers/text_encoder/model.fp16.safetensors"
    save_file({f"text_model.{k.removeprefix('text_model.')}": v for k, v in load_file(path).items()}, path, {"format": "pt"})


def check_single_file(pipe, out):
    """That diffusers reads the original names as the weights they are."""
    import torch
    from diffusers import StableDiffusionPipeline

    read = StableDiffusionPipeline.from_single_file(out / "ldm.safetensors", config=str(out / "diffusers"), local_files_only=True,
                                                    torch_dtype=torch.float16, safety_checker=None)
    for part in ("unet", "vae", "text_encoder"):
        wanted, got = getattr(pipe, part).state_dict(), getattr(read, part).state_dict()
        assert wanted.keys() == got.keys(), part
        wrong = [k for k, v in wanted.items() if not torch.equal(v.half(), got[k])]
        assert not wrong, wrong[:5]


def save_onnx(pipe, out):
    """Four graphs as optimum lays them out."""
    import onnx
    import torch

    class Part(torch.nn.Module):
        def __init__(self, module, run):
            super().__init__()
            self.module, self.run = module, run

        def forward(self, *inputs):
            return self.run(self.module, *inputs)

    channels, dim = pipe.unet.config.in_channels, pipe.unet.config.cross_attention_dim
    latents, context = torch.randn(2, channels, 16, 16), torch.randn(2, 77, dim)
    image, rows = {0: "batch", 2: "height", 3: "width"}, {0: "batch", 1: "sequence"}
    parts = [
        ("text_encoder", pipe.text_encoder, lambda m, ids: m(ids).last_hidden_state, {"input_ids": torch.zeros(2, 77, dtype=torch.int64)},
         "last_hidden_state", {"input_ids": rows}),
        ("unet", pipe.unet, lambda m, x, t, c: m(x, t, c, return_dict=False)[0],
         {"sample": latents, "timestep": torch.tensor(10), "encoder_hidden_states": context}, "out_sample",
         {"sample": image, "encoder_hidden_states": rows}),
        ("vae_decoder", pipe.vae, lambda m, x: m.decode(x, return_dict=False)[0], {"latent_sample": latents[:, :4]}, "sample",
         {"latent_sample": image}),
        ("vae_encoder", pipe.vae, lambda m, x: m.quant_conv(m.encoder(x)), {"sample": torch.randn(2, 3, 128, 128)}, "latent_parameters",
         {"sample": image}),
    ]
    for name, module, run, inputs, output, axes in parts:
        folder, scratch = out / "onnx" / name, out / "onnx" / f"{name}.scratch"
        for made in (folder, scratch):
            made.mkdir(parents=True, exist_ok=True)
        axes = axes | {output: rows if name == "text_encoder" else image}
        with torch.no_grad():
            torch.onnx.export(Part(module, run), tuple(inputs.values()), str(scratch / "model.onnx"), input_names=list(inputs),
                              output_names=[output], dynamic_axes=axes, opset_version=17, dynamo=False)
        model = onnx.load(scratch / "model.onnx")
        onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx_data", size_threshold=1024)
        shutil.rmtree(scratch)
        source = "vae" if name.startswith("vae") else name
        shutil.copy(out / "diffusers" / source / "config.json", folder / "config.json")
    for shared in ("tokenizer", "scheduler", "model_index.json"):
        source = out / "diffusers" / shared
        (shutil.copytree if source.is_dir() else shutil.copy)(source, out / "onnx" / shared)


def save_goldens(pipe, out, size):
    """What diffusers draws: the latents after each step, and the embeddings that they were drawn from."""
    import numpy as np
    import torch
    from diffusers import DDIMScheduler, EulerDiscreteScheduler

    folder, written = out / "golden", []
    folder.mkdir(exist_ok=True)
    base = pipe.scheduler
    for case in CASES:
        kind = {"DDIM": DDIMScheduler, "EULER-D": EulerDiscreteScheduler}[case["scheduler"]]
        pipe.scheduler = kind.from_config(base.config)
        steps = []

        def keep(_pipe, _i, _t, values, steps=steps):
            steps.append(values["latents"].numpy().copy())
            return values

        with torch.no_grad():
            prompt, negative = pipe.encode_prompt(case["prompt"], "cpu", 1, True, case["negative_prompt"])
            start = time.perf_counter()
            pipe(prompt=case["prompt"], negative_prompt=case["negative_prompt"], width=size, height=size, num_inference_steps=STEPS,
                 guidance_scale=GUIDANCE, generator=torch.Generator().manual_seed(case["seed"]), output_type="latent",
                 callback_on_step_end=keep)
            seconds = time.perf_counter() - start
        name = case["scheduler"].lower()
        np.save(folder / f"{name}.npy", np.concatenate(steps))  # [steps, 4, h, w]; the last is the result
        np.save(folder / f"{name}.embeddings.npy", np.concatenate([negative.numpy(), prompt.numpy()]))  # [2, 77, dim]
        spread = [round(float(s.std()), 3) for s in steps]
        written.append(case | {"width": size, "height": size, "num_inference_steps": STEPS, "guidance_scale": GUIDANCE,
                               "latents": f"{name}.npy", "embeddings": f"{name}.embeddings.npy"})
        print(f"{case['scheduler']}: {STEPS} steps in {seconds:.1f} s, spread of the latents {spread}", flush=True)
        assert np.isfinite(steps[-1]).all()
    (folder / "cases.json").write_text(json.dumps(written, indent=1) + "\n")
    pipe.scheduler = base


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--tiny", action="store_true", help="models/tiny-sd's sizes; implies --all")
    arguments.add_argument("--weights", type=Path, help="a diffusers folder to take half-precision weights from")
    arguments.add_argument("--all", action="store_true", help="bfloat16, full precision, averages, shards too")
    arguments.add_argument("--no-onnx", action="store_true", help="leave out OUT/onnx")
    arguments.add_argument("--measure", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    out = given.out
    if given.measure:
        measure(given.measure, str(out / ("ldm.safetensors" if given.measure == "from_single_file" else "diffusers")), str(out / "diffusers"))
        return
    import torch

    quietly()
    out.mkdir(parents=True, exist_ok=True)
    everything = given.all or given.tiny
    sizes = MODELS / ("tiny-sd" if given.tiny else "graphs/sd-v1")
    pipe = trained_pipeline(given.weights) if given.weights else random_pipeline(sizes)
    pipe.set_progress_bar_config(disable=True)

    save_diffusers(pipe, out, everything, sizes / "scheduler/scheduler_config.json")
    state = ldm_state(pipe)
    save_ldm(state, out / "ldm.safetensors", torch.float16)
    save_tiny_vae(sizes, out / "ldm.taesd.safetensors")
    if everything:
        if not given.weights:  # trained weights do not fit bfloat16
            save_ldm(state, out / "ldm.bf16.safetensors", torch.bfloat16)
        save_ldm(state, out / "ldm.full.safetensors", torch.float32)
        save_ldm(with_averages(state), out / "ldm.ema.safetensors", torch.float16)
    check_single_file(pipe, out)
    save_goldens(pipe, out, 128 if given.tiny else 512)
    if not given.no_onnx:
        save_onnx(pipe, out)
    del pipe, state
    for how in ("from_single_file", "from_pretrained"):
        subprocess.run([sys.executable, __file__, str(out), "--measure", how], check=True)


if __name__ == "__main__":
    main()
