"""Writes pipelines/guided.json: what diffusers' pipelines draw with a UNet that embeds guidance.

    pip install diffusers==0.42.1 transformers torch safetensors
    python tests/golden/guided.py

The UNet is the built-in model's, in torch, with a `time_embedding.cond_proj.weight` whose values are those of `cond_proj` below.
The final latents are rounded to f32.
"""
import json, os, warnings
import numpy as np, torch, diffusers
from diffusers import LCMScheduler, LatentConsistencyModelPipeline, StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from pipelines import MODEL, OUT, start_picture

warnings.filterwarnings("ignore")
diffusers.logging.set_verbosity_error()
diffusers.logging.disable_progress_bar()
WIDTH = 256


def config(part):
    return json.load(open(os.path.join(MODEL, part, "config.json")))


def weights(part, name):
    return {k: v.float() for k, v in load_file(os.path.join(MODEL, part, name)).items()}


def cond_proj(rows):
    """Easy to compute again: sin(i) / 4, in half precision as the file has it."""
    index = np.arange(rows * WIDTH, dtype=np.float64)
    return torch.from_numpy((np.sin(index) / 4).astype(np.float16).astype(np.float32).reshape(rows, WIDTH))


def load(module, state):
    module.load_state_dict(state)
    return module.eval().requires_grad_(False)


def text_encoder():
    settings = config("text_encoder")
    module = CLIPTextModel(CLIPTextConfig(**{k: v for k, v in settings.items() if k not in ("architectures", "model_type")}))
    state = weights("text_encoder", "model.fp16.safetensors")
    bare = {k.removeprefix("text_model."): v for k, v in state.items()}
    prefix = "text_model." if any(k.startswith("text_model.") for k in module.state_dict()) else ""
    return load(module, {prefix + k: v for k, v in bare.items()})


def main():
    file = "diffusion_pytorch_model.fp16.safetensors"
    settings = config("unet") | {"time_cond_proj_dim": WIDTH}
    channels = settings["block_out_channels"][0]
    unet = load(UNet2DConditionModel.from_config(settings),
                weights("unet", file) | {"time_embedding.cond_proj.weight": cond_proj(channels)})
    vae = load(AutoencoderKL.from_config(config("vae")), weights("vae", file))
    base = json.load(open(os.path.join(MODEL, "scheduler", "scheduler_config.json")))
    parts = dict(vae=vae, text_encoder=text_encoder(), unet=unet, tokenizer=CLIPTokenizer.from_pretrained(os.path.join(MODEL, "tokenizer")),
                 safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    lcm = LCMScheduler.from_config({**base, "steps_offset": 1, "clip_sample": False})
    euler = EulerDiscreteScheduler.from_config({**base, "steps_offset": 1, "clip_sample": False})
    cases = []
    for name, mode, kind, scheduler, steps, guidance in (
        ("LCM", "text", LatentConsistencyModelPipeline, lcm, 4, 8.5), ("LCM", "text", LatentConsistencyModelPipeline, lcm, 1, 2.0),
        ("LCM", "text", LatentConsistencyModelPipeline, lcm, 8, 1.0), ("LCM", "image", StableDiffusionImg2ImgPipeline, lcm, 4, 4.0),
        ("EULER-D", "text", StableDiffusionPipeline, euler, 7, 3.0),
    ):
        pipeline = kind(**parts, scheduler=scheduler)
        pipeline.set_progress_bar_config(disable=True)
        seed = 300 + len(cases)
        given = dict(prompt="a red heart on a blue background", num_inference_steps=steps, guidance_scale=guidance,
                     generator=[torch.Generator().manual_seed(seed)], output_type="latent")
        if mode == "image":
            given |= dict(image=start_picture(64, 64), strength=0.6)
        else:
            given |= dict(width=64, height=64)
        latents = pipeline(**given).images
        cases.append(dict(scheduler=name, mode=mode, steps=steps, guidance_scale=guidance, seed=seed,
                          latents=[float(np.float32(v)) for v in latents.flatten()]))
    with open(os.path.join(OUT, "guided.json"), "w") as out:
        out.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()
