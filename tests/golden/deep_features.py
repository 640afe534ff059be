"""Writes pipelines/deep_features.json: what diffusers' pipelines draw with the built-in model where deep features are reused.

    pip install diffusers==0.42.1 transformers torch safetensors pillow && pip install --no-deps DeepCache==0.1.1
    python tests/golden/deep_features.py

The networks are the built-in model's, in torch. DeepCache's own helper, by the authors of the paper, leaves out what calls
between two whole ones do not run, with cache_branch_id 0. It counts by timestep. The second calls of HEUN's steps have the
timesteps of other calls, so the cases with HEUN count calls: a hook puts the kept feature into a UNet that computes everything.
The final latents are rounded to f32.
"""
import json, os, warnings
import numpy as np, torch, diffusers
from DeepCache import DeepCacheSDHelper
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from transformers import CLIPTokenizer

from guided import config, load, text_encoder, weights
from pipelines import MODEL, OUT, SCHEDULERS, start_picture

warnings.filterwarnings("ignore")
diffusers.logging.set_verbosity_error()
PROMPT, NEGATIVE = "a red heart on a blue background", "a green tree"
SIDE = 64
# scheduler, how it starts, steps, guidance, interval
CASES = [
    ("EULER-D", "text", 8, 2.0, 2), ("DDIM", "text", 10, 3.0, 3), ("DPM-M", "text", 11, 2.0, 5), ("UNIPC", "text", 9, 1.0, 2),
    ("EULER-A", "text", 7, 2.0, 20), ("EULER-D", "image", 10, 2.0, 3), ("HEUN", "text", 6, 2.0, 2), ("HEUN", "text", 6, 2.0, 3),
]


class CountedCalls:
    """The whole UNet at each call, but what comes into the last layer of its way up is kept from every N-th call."""

    def __init__(self, unet, interval):
        self.layer, self.interval, self.calls, self.kept = unet.up_blocks[-1].resnets[-1], interval, 0, None
        self.features = unet.config.block_out_channels[0]

    def enable(self):
        self.hook = self.layer.register_forward_pre_hook(self.replaced)

    def disable(self):
        self.hook.remove()

    def replaced(self, _, inputs):
        deep, skip = inputs[0][:, :self.features], inputs[0][:, self.features:]
        if self.calls % self.interval == 0:
            self.kept = deep
        self.calls += 1
        return torch.cat([self.kept, skip], 1), *inputs[1:]


def reuse(pipeline, scheduler, interval):
    if scheduler == "HEUN":
        return CountedCalls(pipeline.unet, interval)
    helper = DeepCacheSDHelper(pipe=pipeline)
    helper.set_params(cache_interval=interval, cache_branch_id=0)
    return helper


def main():
    file = "diffusion_pytorch_model.fp16.safetensors"
    base = json.load(open(os.path.join(MODEL, "scheduler", "scheduler_config.json")))
    parts = dict(vae=load(AutoencoderKL.from_config(config("vae")), weights("vae", file)), text_encoder=text_encoder(),
                 unet=load(UNet2DConditionModel.from_config(config("unet")), weights("unet", file)),
                 tokenizer=CLIPTokenizer.from_pretrained(os.path.join(MODEL, "tokenizer")), safety_checker=None,
                 feature_extractor=None, requires_safety_checker=False)
    cases = []
    for name, mode, steps, guidance, interval in CASES:
        kind = StableDiffusionImg2ImgPipeline if mode == "image" else StableDiffusionPipeline
        pipeline = kind(**parts, scheduler=SCHEDULERS[name].from_config(base))
        pipeline.set_progress_bar_config(disable=True)
        case = dict(scheduler=name, mode=mode, steps=steps, guidance_scale=guidance, cache_interval=interval, prompt=PROMPT,
                    negative_prompt=NEGATIVE, seed=700 + len(cases))
        start = dict(image=start_picture(SIDE, SIDE), strength=0.6) if mode == "image" else dict(width=SIDE, height=SIDE)

        def draw():
            generator = [torch.Generator().manual_seed(case["seed"])]
            return pipeline(prompt=PROMPT, negative_prompt=NEGATIVE, num_inference_steps=steps, guidance_scale=guidance,
                            generator=generator, output_type="latent", **start).images

        whole = draw()
        reused = reuse(pipeline, name, interval)
        reused.enable()
        latents = draw()
        reused.disable()
        case["change"] = round(float((latents - whole).norm() / whole.norm()), 4)
        cases.append(case | dict(latents=[float(np.float32(v)) for v in latents.flatten()]))
        print(name, mode, steps, interval, case["change"])
    with open(os.path.join(OUT, "deep_features.json"), "w") as out:
        out.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()
