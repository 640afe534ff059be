"""Writes pipelines/prompt_parts.json: what the built-in model draws when the prompt has parts, or changes from step to step.

    pip install diffusers==0.42.1 transformers torch onnxruntime==1.32.0 numpy
    python tests/golden/prompt_parts.py

CASES states for each prompt what A1111's documentation says that it is at each step: its parts with their weights, and the
negative prompt. The loop below is composable diffusion (arXiv 2206.01714) with diffusers' schedulers: the prediction is
u + scale * sum(weight * (part - u)), where u is the one for the negative prompt. Behind guidance_end the scale is 1. The
networks are those of pipelines.py.
"""
import json, os
import torch
from transformers import CLIPTokenizer

from pipelines import MODEL, OUT, S, TextEncoder, UNet

HEART, TREE, RAIN = "a red heart on a blue background", "a green tree", "rain"


def case(scheduler, steps, guidance, prompt, positives, negative="", negatives=("",), guidance_end=1.0):
    return dict(scheduler=scheduler, steps=steps, guidance_scale=guidance, guidance_end=guidance_end, prompt=prompt,
                negative_prompt=negative, positives=positives, negatives=list(negatives))


PARTS = [(HEART, 1.0), (TREE, 0.6), (RAIN, -0.3)]
CASES = [
    # The lists hold a step each; the last one stands for all that follow.
    case("EULER-D", 7, 2.0, f"{HEART} AND {TREE} :0.6 AND {RAIN}:-0.3", [PARTS]),
    case("DDIM", 5, 1.0, f"{HEART} AND {TREE} :0.6 AND {RAIN}:-0.3", [PARTS]),
    case("EULER-D", 8, 2.0, f"{HEART} AND {TREE} :0.6", [PARTS[:2]], guidance_end=0.5),
    case("EULER-D", 8, 2.0, "[a red heart:a green tree:0.5] on a blue background",
         [[(HEART, 1.0)]] * 4 + [[("a green tree on a blue background", 1.0)]]),
    case("DDIM", 7, 2.0, "a [red|blue|green] heart", [[(f"a {['red', 'blue', 'green'][step % 3]} heart", 1.0)] for step in range(7)],
         "[rain:snow:3]", ["rain"] * 3 + ["snow"]),
    case("HEUN", 5, 2.0, "[a red heart|a green tree] AND [a house:2] :0.5",
         [[("a red heart" if step % 2 == 0 else TREE, 1.0), ("" if step < 2 else "a house", 0.5)] for step in range(5)]),
]
SCHEDULERS = {"EULER-D": S.EulerDiscreteScheduler, "DDIM": S.DDIMScheduler, "HEUN": S.HeunDiscreteScheduler}


def main():
    tokenizer = CLIPTokenizer.from_pretrained(os.path.join(MODEL, "tokenizer"))
    base = S.PNDMScheduler.from_pretrained(os.path.join(MODEL, "scheduler")).config
    text_encoder, unet = TextEncoder("text_encoder"), UNet()

    def encode(text):
        ids = tokenizer(text, padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt").input_ids
        return text_encoder(ids)[0]

    for number, case in enumerate(CASES):
        scheduler = SCHEDULERS[case["scheduler"]].from_config(base)
        scheduler.set_timesteps(case["steps"])
        case["seed"] = 500 + number
        noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(case["seed"]))
        latents = noise * scheduler.init_noise_sigma
        calls = len(scheduler.timesteps)
        for call, t in enumerate(scheduler.timesteps):
            step = call * case["steps"] // calls
            parts = case["positives"][min(step, len(case["positives"]) - 1)]
            negative = case["negatives"][min(step, len(case["negatives"]) - 1)]
            shown = scheduler.scale_model_input(latents, t)
            predictions = [(unet(shown, t, encode(text))[0], weight) for text, weight in parts]
            u = unet(shown, t, encode(negative))[0]
            scale = case["guidance_scale"] if call < case["guidance_end"] * calls else 1.0
            noise_pred = u + scale * sum(weight * (prediction - u) for prediction, weight in predictions)
            latents = scheduler.step(noise_pred, t, latents).prev_sample
        case["latents"] = [float(value) for value in latents.flatten()]
    with open(os.path.join(OUT, "prompt_parts.json"), "w") as out:
        out.write("[\n" + ",\n".join(json.dumps(case) for case in CASES) + "\n]\n")


if __name__ == "__main__":
    main()
