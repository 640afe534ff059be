"""Writes controlnet.json: what diffusers' ControlNet pipelines draw with the built-in model.

    python tests/golden/controlnet.py     # needs models/graphs/requirements.txt and scipy

The ControlNets are not files: each weight is a formula of its name and its place, which `tests/controlnet` computes again.
The pipelines run unchanged, with the built-in model's own networks in torch, float32.

It also writes the original name of each tensor, which diffusers' converter of original ControlNets confirms.
"""
import json
import warnings
import zlib
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

from pipelines import start_mask, start_picture

warnings.filterwarnings("ignore")
diffusers.logging.set_verbosity_error()
diffusers.logging.disable_progress_bar()
HERE = Path(__file__).resolve().parent
MODEL = HERE.parent.parent / "models" / "tiny-sd"
PROMPT, NEGATIVE = "a red heart on a blue background", "a green tree"
WIDTH, HEIGHT, STEPS, SEED = 96, 64, 7, 11
# Each case differs visibly from the picture without ControlNets: the script prints by how much.
CASES = [
    dict(mode="text", units=[dict(weight=1.0)]),
    dict(mode="text", units=[dict(weight=0.6, start=0.2, end=0.8)]),
    dict(mode="text", units=[dict(weight=0.7), dict(weight=0.5, start=0.5)]),
    dict(mode="text", units=[dict(weight=1.0)], guess=True),
    dict(mode="text", units=[dict(weight=1.3)], guidance_scale=1.0, scheduler="EULER-A"),
    dict(mode="image", units=[dict(weight=0.8)], strength=0.6, scheduler="EULER-D"),
    dict(mode="inpaint", units=[dict(weight=1.0)], strength=0.6),
]
SCHEDULERS = {
    "DDIM": diffusers.DDIMScheduler, "EULER-D": diffusers.EulerDiscreteScheduler,
    "EULER-A": diffusers.EulerAncestralDiscreteScheduler,
}
LDM = json.loads((HERE / "ldm_names.json").read_text())


def weight(controlnet, name, shape):
    """Numbers that look random: a multiplicative hash of the place, with the name's checksum."""
    count = int(np.prod(shape))
    start = np.uint64(zlib.crc32(f"{controlnet}.{name}".encode()))
    places = (np.arange(count, dtype=np.uint64) + start) * np.uint64(2654435761) % np.uint64(1 << 32)
    places = (places ^ (places >> np.uint64(15))) * np.uint64(2246822519) % np.uint64(1 << 32)
    values = places.astype(np.float64) / 2**31 - 1  # -1 to 1
    if len(shape) > 1:
        values *= 1.7 * (np.prod(shape[1:]) ** -0.5)
        if name.startswith(("controlnet_down_blocks", "controlnet_mid_block")):
            values *= 0.1
    else:
        values = (1.0 if "norm" in name and name.endswith("weight") else 0.0) + 0.05 * values
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def controlnet(name, unet):
    model = diffusers.ControlNetModel.from_unet(unet)
    model.load_state_dict({key: weight(name, key, tuple(value.shape)) for key, value in model.state_dict().items()})
    return model.eval()


def original_names(model):
    """The name of each tensor in lllyasviel's files, checked with diffusers' converter."""
    names = {}
    for name in model.state_dict():
        layer, rest = name.split(".", 1)
        if layer == "controlnet_cond_embedding":
            part, end = rest.rsplit(".", 1)
            number = {"conv_in": 0, "conv_out": 14}.get(part)
            number = 2 * (int(part.split(".")[1]) + 1) if number is None else number
            names[name] = f"control_model.input_hint_block.{number}.{end}"
        elif layer == "controlnet_down_blocks":
            number, end = rest.split(".")
            names[name] = f"control_model.zero_convs.{number}.0.{end}"
        elif layer == "controlnet_mid_block":
            names[name] = f"control_model.middle_block_out.0.{rest}"
        else:
            names[name] = LDM["tiny-sd"][f"unet/{name}"].replace("model.diffusion_model.", "control_model.")
    marked = {original: torch.tensor(float(number)) for number, original in enumerate(names.values())}
    converted = convert_controlnet_checkpoint(dict(marked), model.config)
    for number, name in enumerate(names):
        assert converted[name].item() == number, name
    return names


def pipelines(parts):
    return {
        "text": diffusers.StableDiffusionControlNetPipeline(**parts),
        "image": diffusers.StableDiffusionControlNetImg2ImgPipeline(**parts),
        "inpaint": diffusers.StableDiffusionControlNetInpaintPipeline(**parts),
    }


def run(parts, nets, case):
    units = case["units"]
    nets = nets[:len(units)]
    pipeline = pipelines({**parts, "controlnet": nets if len(nets) > 1 else nets[0]})[case["mode"]]
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = SCHEDULERS[case.get("scheduler", "DDIM")].from_config(parts["scheduler"].config)
    one = lambda values: values if len(values) > 1 else values[0]
    hints = one([start_picture(WIDTH, HEIGHT), start_mask(WIDTH, HEIGHT)][:len(units)])
    arguments = dict(
        prompt=PROMPT, negative_prompt=NEGATIVE, num_inference_steps=STEPS, guidance_scale=case.get("guidance_scale", 2.0),
        generator=[torch.Generator().manual_seed(SEED)], output_type="latent", guess_mode=case.get("guess", False),
        controlnet_conditioning_scale=one([unit["weight"] for unit in units]),
        control_guidance_start=[unit.get("start", 0.0) for unit in units],
        control_guidance_end=[unit.get("end", 1.0) for unit in units],
    )
    picture = start_picture(WIDTH, HEIGHT)
    if case["mode"] == "text":
        arguments |= dict(image=hints, width=WIDTH, height=HEIGHT)
    else:
        arguments |= dict(image=picture, control_image=hints, strength=case["strength"], width=WIDTH, height=HEIGHT)
    if case["mode"] == "inpaint":
        arguments |= dict(mask_image=start_mask(WIDTH, HEIGHT))
    with torch.no_grad():
        return pipeline(**arguments).images


def main():
    base = diffusers.StableDiffusionPipeline.from_pretrained(MODEL, variant="fp16", torch_dtype=torch.float32, safety_checker=None,
                                                            feature_extractor=None, requires_safety_checker=False)
    parts = {name: part for name, part in base.components.items() if name not in ("image_encoder",)}
    parts |= dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    nets = [controlnet(name, base.unet) for name in ("a", "b")]
    cases = []
    for case in CASES:
        latents = run(parts, nets, case)
        silent = run(parts, nets, {**case, "units": [{**unit, "weight": 0.0} for unit in case["units"]]})
        change = float((latents - silent).norm() / silent.norm())
        print(case, f"differs from the picture without by {change:.2f}")
        cases.append({**case, "latents": [float(value) for value in latents.flatten()]})
    originals = original_names(nets[0])
    tensors = {name: dict(shape=list(value.shape), original=originals[name]) for name, value in nets[0].state_dict().items()}
    head = dict(diffusers=diffusers.__version__, prompt=PROMPT, negative_prompt=NEGATIVE, width=WIDTH, height=HEIGHT, steps=STEPS, seed=SEED)
    head |= dict(tensors=tensors, cases=cases)
    (HERE / "controlnet.json").write_text(json.dumps(head) + "\n")


if __name__ == "__main__":
    main()
