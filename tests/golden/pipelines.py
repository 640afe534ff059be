"""Writes pipelines/: what diffusers' own pipelines draw with the built-in model.

    pip install diffusers==0.42.1 transformers torch onnxruntime==1.32.0 pillow numpy scipy
    python tests/golden/pipelines.py

StableDiffusionPipeline, …Img2ImgPipeline and …InpaintPipeline run unchanged. Only their networks are the ONNX graphs of
tests/models/tiny-sd-onnx, each in a module with the interface of the one that it replaces. The cases are every scheduler, three
ways to start, 1, 2, 7, 20 and 50 steps, and two sizes, with one CPU generator a picture.

latents.bin holds the final latents of all cases in the order of cases.json, as f32, little-endian. The PNGs are a few of
them, decoded.
"""
import json, logging, os, warnings
import numpy as np, onnxruntime, torch, diffusers
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.configuration_utils import FrozenDict
from PIL import Image
from transformers import CLIPTokenizer

warnings.filterwarnings("ignore")
diffusers.logging.set_verbosity_error()
diffusers.logging.disable_progress_bar()
HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "pipelines")
MODEL = os.path.join(HERE, "..", "..", "models", "tiny-sd")
GRAPHS = os.path.join(HERE, "..", "models", "tiny-sd-onnx")
PROMPT, NEGATIVE = "a red heart on a blue background", "a green tree"
STEPS = (1, 2, 7, 20, 50)
SIZES = ((128, 128), (96, 64))  # width, height
# With this model and a guidance of 7.5, the linear multistep schedulers (K-LMS, PNDM) amplify the last bit of a sum into
# a visible difference. Guidance is low, and off at 50 steps, so that the table compares programs and not roundings.
GUIDANCE = {1: 2.0, 2: 2.0, 7: 2.0, 20: 1.5, 50: 1.0}
# At least one step must remain. Inpainting at full strength begins differently: from noise alone.
STRENGTH = {"image": {1: 1.0, 2: 0.6, 7: 0.6, 20: 0.6, 50: 0.6}, "inpaint": {1: 1.0, 2: 0.6, 7: 1.0, 20: 0.6, 50: 0.6}}
PICTURES = {("EULER-D", 20), ("DPM-M", 7), ("DDIM", 20)}
S = diffusers
SCHEDULERS = {
    "DDIM": S.DDIMScheduler, "DDPM": S.DDPMScheduler, "DPM-M": S.DPMSolverMultistepScheduler,
    "DPM-S": S.DPMSolverSinglestepScheduler, "EULER-A": S.EulerAncestralDiscreteScheduler,
    "EULER-D": S.EulerDiscreteScheduler, "HEUN": S.HeunDiscreteScheduler, "IPNDM": S.IPNDMScheduler,
    "KDPM2-A": S.KDPM2AncestralDiscreteScheduler, "KDPM2-D": S.KDPM2DiscreteScheduler,
    "K-LMS": S.LMSDiscreteScheduler, "LCM": S.LCMScheduler, "PNDM": S.PNDMScheduler,
    "UNIPC": S.UniPCMultistepScheduler,
}


def config(part):
    return FrozenDict(json.load(open(os.path.join(GRAPHS, part, "config.json"))))


class Graph(torch.nn.Module):
    """An ONNX graph where a pipeline expects a torch module."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, part):
        super().__init__()
        self.session = self.open(part)
        self.config = config(part)

    @staticmethod
    def open(part):
        return onnxruntime.InferenceSession(os.path.join(GRAPHS, part, "model.onnx"), providers=["CPUExecutionProvider"])

    @staticmethod
    def call(session, *tensors):
        feed = {port.name: tensor.numpy() for port, tensor in zip(session.get_inputs(), tensors)}
        return torch.from_numpy(session.run(None, feed)[0])


class TextEncoder(Graph):
    def forward(self, input_ids, attention_mask=None, **_):
        return (self.call(self.session, input_ids.to(torch.int32)),)


class UNet(Graph):
    def __init__(self, part="unet"):
        super().__init__(part)
        self.config = FrozenDict({**self.config, "time_cond_proj_dim": None})

    def forward(self, sample, timestep, encoder_hidden_states, **_):
        timesteps = torch.as_tensor(timestep, dtype=torch.float32).reshape(-1).expand(sample.shape[0]).contiguous()
        return (self.call(self.session, sample, timesteps, encoder_hidden_states),)


class Encoded:
    def __init__(self, moments):
        self.latent_dist = DiagonalGaussianDistribution(moments)


class Vae(Graph):
    def __init__(self):
        super().__init__("vae_decoder")
        self.encoder = self.open("vae_encoder")

    def encode(self, pixels):
        return Encoded(self.call(self.encoder, pixels.contiguous()))

    def decode(self, latents, return_dict=False, generator=None):
        return (self.call(self.session, latents.contiguous()),)


def start_picture(width, height):
    """A picture that is easy to compute again: a disc on a slope."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    disc = (2 * x - width) ** 2 + (2 * y - height) ** 2 < (min(width, height) * 2 // 3) ** 2
    red, green, blue = (x * 255 // width), (y * 255 // height), 0 * x + 200
    return Image.fromarray(np.where(disc[..., None], [[[230, 40, 40]]], np.stack([red, green, blue], -1)).astype(np.uint8))


def start_mask(width, height):
    """White in the right part. Its edge lies within a latent."""
    x = np.tile(np.arange(width), (height, 1))
    return Image.fromarray(np.where(x >= width * 2 // 5 + 3, 255, 0).astype(np.uint8)).convert("RGB")


def pipelines():
    scheduler = S.PNDMScheduler.from_pretrained(os.path.join(MODEL, "scheduler"))
    parts = dict(vae=Vae(), text_encoder=TextEncoder("text_encoder"), unet=UNet(), scheduler=scheduler,
                 tokenizer=CLIPTokenizer.from_pretrained(os.path.join(MODEL, "tokenizer")),
                 safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    made = {"text": S.StableDiffusionPipeline(**parts), "image": S.StableDiffusionImg2ImgPipeline(**parts),
            "inpaint": S.StableDiffusionInpaintPipeline(**parts)}
    for pipeline in made.values():
        pipeline.set_progress_bar_config(disable=True)
    return made, scheduler.config


def run(pipeline, mode, size, steps, seed):
    width, height = size
    arguments = dict(prompt=PROMPT, negative_prompt=NEGATIVE, num_inference_steps=steps, guidance_scale=GUIDANCE[steps],
                     generator=[torch.Generator().manual_seed(seed)], output_type="latent")
    if mode != "text":
        arguments |= dict(image=start_picture(width, height), strength=STRENGTH[mode][steps])
    if mode != "image":
        arguments |= dict(width=width, height=height)
    if mode == "inpaint":
        arguments |= dict(mask_image=start_mask(width, height))
    return pipeline(**arguments).images


def main():
    os.makedirs(OUT, exist_ok=True)
    made, base = pipelines()
    cases, latents = [], []
    for name, scheduler in SCHEDULERS.items():
        for mode, pipeline in made.items():
            if name == "IPNDM" and mode != "text":
                continue  # it defines no way to add noise
            for size in SIZES:
                for steps in STEPS:
                    pipeline.scheduler = scheduler.from_config(base)
                    seed = 1000 + 7 * len(cases)
                    final = run(pipeline, mode, size, steps, seed)
                    timesteps = pipeline.scheduler.timesteps
                    if mode != "text":
                        timesteps = pipeline.get_timesteps(steps, STRENGTH[mode][steps], "cpu")[0]
                    case = dict(scheduler=name, mode=mode, width=size[0], height=size[1], steps=steps, seed=seed,
                                guidance_scale=GUIDANCE[steps], timesteps=[float(t) for t in timesteps])
                    if mode != "text":
                        case["strength"] = STRENGTH[mode][steps]
                    if (name, steps) in PICTURES and size == SIZES[0]:
                        pixels = pipeline.vae.decode(final / pipeline.vae.config.scaling_factor)[0]
                        case["png"] = f"{name}-{mode}.png"
                        pipeline.image_processor.postprocess(pixels, output_type="pil")[0].save(os.path.join(OUT, case["png"]), optimize=True)
                    cases.append(case)
                    latents.append(final.numpy().astype("<f4").tobytes())
        print(name, len(cases), flush=True)
    head = dict(diffusers=diffusers.__version__, torch=torch.__version__, onnxruntime=onnxruntime.__version__,
                prompt=PROMPT, negative_prompt=NEGATIVE)
    with open(os.path.join(OUT, "cases.json"), "w") as file:
        file.write(json.dumps(head)[:-1] + ', "cases": [\n' + ",\n".join(json.dumps(c) for c in cases) + "\n]}\n")
    open(os.path.join(OUT, "latents.bin"), "wb").write(b"".join(latents))


if __name__ == "__main__":
    main()
