"""Step 4b: the same weights as diffusers keeps them: float16 safetensors, one file a network.

Writes text_encoder/model.fp16.safetensors, unet/ and vae/diffusion_pytorch_model.fp16.safetensors and vae/config.json, then loads
the folder with diffusers and compares every tensor with the checkpoint and with the ONNX files' initialisers, bit for bit.
usage: export_safetensors.py [folder]
"""
import json, os, shutil, sys
import numpy as np, onnx, torch
from diffusers import StableDiffusionPipeline
from onnx import numpy_helper
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
WORK = os.environ.get("WORK", os.path.join(HERE, "data"))
OUT = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(HERE)


def halves(state, prefix=""):
    """Checkpoint names -> contiguous float16; index buffers are left out."""
    return {prefix + k: v.half().contiguous() for k, v in state.items() if v.is_floating_point()}


def onnx_values(part):
    """Every float initialiser of a part's ONNX file, as the bytes of its float16 values."""
    graph = onnx.load(f"{OUT}/{part}/model.onnx").graph
    arrays = (numpy_helper.to_array(i) for i in graph.initializer)
    return {a.astype(np.float16).tobytes() for a in arrays if a.dtype in (np.float16, np.float32)}


def compare(name, module, state, parts):
    """What diffusers loads is the checkpoint's, and each tensor is in one of the ONNX files (linear weights transposed there)."""
    known = set().union(*(onnx_values(part) for part in parts if os.path.exists(f"{OUT}/{part}/model.onnx")))
    loaded = module.state_dict()
    for key, wanted in state.items():
        assert torch.equal(loaded[key], wanted), key
        values = wanted.numpy()
        assert not known or values.tobytes() in known or np.ascontiguousarray(values.T).tobytes() in known, key
    print(f"{name:13} {len(state):4} tensors, equal in diffusers{' and in the ONNX files' if known else ''}")


def main():
    checkpoint = torch.load(f"{WORK}/diffusion.pt", map_location="cpu", weights_only=True)
    text, unet = halves(checkpoint["text"]), halves(checkpoint["unet"])
    vae = halves(torch.load(f"{WORK}/vae.pt", map_location="cpu", weights_only=True))
    os.makedirs(f"{OUT}/vae", exist_ok=True)
    if os.path.exists(f"{OUT}/vae_decoder/config.json"):
        shutil.copy(f"{OUT}/vae_decoder/config.json", f"{OUT}/vae/config.json")
    assert json.load(open(f"{OUT}/vae/config.json"))["scaling_factor"] == json.load(open(f"{WORK}/vae.json"))["scaling_factor"]
    # Published checkpoints of Stable Diffusion v1 say text_model. before each name of the text encoder.
    save_file({"text_model." + k: v for k, v in text.items()}, f"{OUT}/text_encoder/model.fp16.safetensors", {"format": "pt"})
    save_file(unet, f"{OUT}/unet/diffusion_pytorch_model.fp16.safetensors", {"format": "pt"})
    save_file(vae, f"{OUT}/vae/diffusion_pytorch_model.fp16.safetensors", {"format": "pt"})

    pipe = StableDiffusionPipeline.from_pretrained(OUT, variant="fp16", torch_dtype=torch.float16, local_files_only=True)
    compare("text_encoder", pipe.text_encoder, text, ["text_encoder"])
    compare("unet", pipe.unet, unet, ["unet"])
    compare("vae", pipe.vae, vae, ["vae_decoder", "vae_encoder"])


if __name__ == "__main__":
    main()
