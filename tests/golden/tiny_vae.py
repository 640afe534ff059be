"""Writes tiny_vae/: a tiny VAE with random weights as diffusers saves it, and what diffusers makes of latents with it.

    pip install torch diffusers safetensors
    python tests/golden/tiny_vae.py

Its sizes are those of the built-in model's (models/tiny-sd/vae_tiny/config.json), with the encoder, so that the file has all that
people's files have. expected.json has the pixels of latents(): the tensor's values at every STEP-th place. Ours must come within
1e-4 of the largest.
"""
import json, os, torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "tiny_vae")
CONFIG = os.path.join(HERE, "../../models/tiny-sd/vae_tiny/config.json")
STEP = 97
SIZES = [(8, 8), (9, 13)]


def latents(height, width):
    """Numbers that the Rust test makes as well, of up to ±4.5."""
    count = 4 * height * width
    return torch.tensor([(i * 37 % 101 - 50) * 0.09 for i in range(count)]).reshape(1, 4, height, width)


def main():
    torch.manual_seed(7)
    vae = AutoencoderTiny.from_config(json.load(open(CONFIG))).eval()
    with torch.no_grad():
        for parameter in vae.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
            parameter.normal_(std=fan_in ** -0.5)
        vae.half().float()  # as the file has them
        cases = [{"height": h, "width": w, "values": vae.decode(latents(h, w)).sample.flatten()[::STEP].tolist()} for h, w in SIZES]
    os.makedirs(OUT, exist_ok=True)
    save_file({name: value.half().contiguous() for name, value in vae.state_dict().items()}, f"{OUT}/tiny_vae.safetensors", {"format": "pt"})
    with open(f"{OUT}/expected.json", "w") as file:
        json.dump(cases, file)


if __name__ == "__main__":
    main()
