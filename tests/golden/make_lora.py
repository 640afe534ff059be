"""Writes lora/: small LoRA files for the default model, as trainers write them, and the weights after PEFT merged each.

    pip install torch diffusers transformers peft safetensors
    python tests/golden/make_lora.py

This script hands the matrices to PEFT, which merges them. If diffusers can read the file (load_lora_weights, the UNet's part), its
result must be the same. PEFT has no convolution in three parts (LyCORIS' CP), so that is multiplied out below as A1111 does
(extensions-builtin/Lora/lyco_helpers.py). It keeps every STRIDE-th value of a merged weight.
"""
import json, os
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.join(HERE, "..", "..", "models", "tiny-sd")
OUT = os.path.join(HERE, "lora")
STRIDE = 13
generator = torch.Generator().manual_seed(5)
random = lambda *shape: torch.randn(*shape, generator=generator) * 0.1

LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
TO_OUT = "up_blocks.2.attentions.1.transformer_blocks.0.attn2.to_out.0"
TO_K = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
POINT = "down_blocks.1.attentions.0.proj_in"
CONV = "down_blocks.0.resnets.0.conv1"
STRIDED = "down_blocks.0.downsamplers.0.conv"
Q_PROJ = "text_model.encoder.layers.0.self_attn.q_proj"
FC1 = "text_model.encoder.layers.2.mlp.fc1"
# The same with the original code's names; tiny-sd has one layer a block.
ORIGINAL = {
    LINEAR: "input_blocks_1_1_transformer_blocks_0_attn1_to_q", TO_OUT: "output_blocks_5_1_transformer_blocks_0_attn2_to_out_0",
    TO_K: "middle_block_1_transformer_blocks_0_attn2_to_k", POINT: "input_blocks_3_1_proj_in", CONV: "input_blocks_1_0_in_layers_2",
    STRIDED: "input_blocks_2_0_op",
}


def pipeline():
    text_config = {k: v for k, v in json.load(open(f"{MODEL}/text_encoder/config.json")).items() if k != "architectures"}
    text, unet = CLIPTextModel(CLIPTextConfig(**text_config)), UNet2DConditionModel.from_config(f"{MODEL}/unet")
    named = {k: v.float() for k, v in load_file(f"{MODEL}/text_encoder/model.fp16.safetensors").items()}
    if not set(text.state_dict()) <= set(named):  # newer transformers leave the first part of the names out
        named = {k.removeprefix("text_model."): v for k, v in named.items()}
    text.load_state_dict(named, strict=False)
    unet.load_state_dict({k: v.float() for k, v in load_file(f"{MODEL}/unet/diffusion_pytorch_model.fp16.safetensors").items()})
    return StableDiffusionPipeline(
        vae=AutoencoderKL(), text_encoder=text, tokenizer=CLIPTokenizer.from_pretrained(f"{MODEL}/tokenizer"), unet=unet,
        scheduler=DDIMScheduler(), safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def place(pipe, module):
    """The model that a module is in, and its name there."""
    if not module.startswith("text_model"):
        return pipe.unet, module
    names = {n for n, _ in pipe.text_encoder.named_modules()}
    return pipe.text_encoder, module if module in names else module.removeprefix("text_model.")


def weight(pipe, module):
    model, name = place(pipe, module)
    found = model.get_submodule(name)
    return getattr(found, "base_layer", found).weight.detach().clone()


def by_peft(matrices, alphas, scale=1.0):
    """The merged weights: module -> (down, up), module -> alpha."""
    pipe, merged = pipeline(), {}
    for module, (down, up) in matrices.items():
        model, name = place(pipe, module)
        inject_adapter_in_model(LoraConfig(r=down.shape[0], lora_alpha=alphas[module], target_modules=[name]), model, adapter_name="a")
        layer = model.get_submodule(name)
        with torch.no_grad():
            layer.lora_A["a"].weight.copy_(down)
            layer.lora_B["a"].weight.copy_(up)
        layer.scale_layer(scale)
        layer.merge()
        merged[module] = weight(pipe, module)
        model.set_submodule(name, layer.base_layer)
        assert (merged[module] - weight(PIPE, module)).abs().max() > 1e-4, f"{module} is unchanged"
    return merged


def check_by_diffusers(name, merged, scale=1.0, leaving_out=()):
    """What diffusers makes of the file in the UNet is the same."""
    pipe = pipeline()
    state, alphas, notes = pipe.lora_state_dict(OUT, weight_name=f"{name}.safetensors", unet_config=pipe.unet.config, return_lora_metadata=True)
    pipe.load_lora_into_unet(state, alphas, pipe.unet, adapter_name="a", metadata=notes, _pipeline=pipe)
    pipe.fuse_lora(components=["unet"], lora_scale=scale, adapter_names=["a"])
    for module in (m for m in merged if not m.startswith("text_model") and m not in leaving_out):
        off = (weight(pipe, module) - merged[module]).abs().max().item()
        assert off < 1e-6, f"{name}: {module} is {off} off in diffusers"


def keep(name, merged):
    save_file({f"{m}.weight": w.reshape(-1)[::STRIDE].contiguous() for m, w in merged.items()}, f"{OUT}/{name}.merged.safetensors")


def random_matrices(module, rank):
    shape = weight(PIPE, module).shape
    return random(rank, *shape[1:]), random(shape[0], rank, *[1] * (len(shape) - 2))


def kohya(name, matrices, alphas, names={}, dtype=torch.float32):
    tensors = {}
    for m, (down, up) in matrices.items():
        flat = ("lora_te_" if m.startswith("text_model") else "lora_unet_") + names.get(m, m.replace(".", "_"))
        tensors[f"{flat}.lora_down.weight"], tensors[f"{flat}.lora_up.weight"] = down.to(dtype), up.to(dtype)
        tensors[f"{flat}.alpha"] = torch.tensor(float(alphas[m]), dtype=dtype)
    save_file(tensors, f"{OUT}/{name}.safetensors", metadata={"ss_network_module": "networks.lora"})


os.makedirs(OUT, exist_ok=True)
PIPE = pipeline()

# kohya: linear, a 1×1 convolution, LoCon, an attention's output, both model parts, each with an alpha, and a scale other than 1.
RANKS = {LINEAR: 4, TO_OUT: 3, TO_K: 2, POINT: 2, CONV: 2, STRIDED: 1, Q_PROJ: 4, FC1: 2}
ALPHAS = {LINEAR: 2, TO_OUT: 3, TO_K: 1, POINT: 2, CONV: 1, STRIDED: 0.5, Q_PROJ: 1, FC1: 4}
made = {m: random_matrices(m, rank) for m, rank in RANKS.items()}
kohya("kohya", made, ALPHAS)
merged = by_peft(made, ALPHAS, 0.8)
check_by_diffusers("kohya", merged, 0.8, leaving_out=(TO_OUT, TO_K))  # diffusers 0.42 loses their alphas, with a warning
keep("kohya", merged)

# The original code's names, in half precision, no text encoder.
half = {m: tuple(t.half().float() for t in made[m]) for m in ORIGINAL}
kohya("original_half", half, ALPHAS, ORIGINAL, torch.float16)
keep("original_half", by_peft(half, ALPHAS))

# A convolution in three parts.
out, inside = weight(PIPE, CONV).shape[:2]
down, up, mid = random(3, inside, 1, 1), random(out, 2, 1, 1), random(2, 3, 3, 3)
flat = "lora_unet_" + CONV.replace(".", "_")
save_file({f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up, f"{flat}.lora_mid.weight": mid, f"{flat}.alpha": torch.tensor(2.0)}, f"{OUT}/cp.safetensors")
keep("cp", {CONV: weight(PIPE, CONV) + torch.einsum("nmkl,in,mj->ijkl", mid, up[..., 0, 0], down[..., 0, 0]) * (2.0 / 3)})

# PEFT's names as diffusers saves them: alpha is in the file's metadata, for one module by a pattern.
peft = {m: random_matrices(m, 2) for m in (LINEAR, TO_OUT, CONV, Q_PROJ)}
notes = {"unet": LoraConfig(r=2, lora_alpha=3, target_modules=[LINEAR, TO_OUT, CONV], alpha_pattern={TO_OUT: 1}).to_dict(),
         "text_encoder": LoraConfig(r=2, lora_alpha=1, target_modules=[Q_PROJ]).to_dict()}
layers = lambda text: {f"{m}.lora_{which}.weight": t for m, pair in peft.items() if m.startswith("text_model") == text for which, t in zip("AB", pair)}
StableDiffusionPipeline.save_lora_weights(
    OUT, unet_lora_layers=layers(False), text_encoder_lora_layers=layers(True), weight_name="peft.safetensors",
    unet_lora_adapter_metadata=notes["unet"], text_encoder_lora_adapter_metadata=notes["text_encoder"])
merged = by_peft(peft, {LINEAR: 3, TO_OUT: 1, CONV: 3, Q_PROJ: 1})
check_by_diffusers("peft", merged)
keep("peft", merged)

# Older diffusers' names, with the matrices of the first file. Their scale is 1 for any rank.
old = {}
for m in (LINEAR, TO_OUT, TO_K):
    attention, end = m.removesuffix(".0").rsplit(".", 1)
    old[f"unet.{attention}.processor.{end}_lora.down.weight"], old[f"unet.{attention}.processor.{end}_lora.up.weight"] = made[m]
old[f"text_encoder.{Q_PROJ}.lora_linear_layer.down.weight"], old[f"text_encoder.{Q_PROJ}.lora_linear_layer.up.weight"] = made[Q_PROJ]
save_file(old, f"{OUT}/old_diffusers.safetensors")
merged = by_peft({m: made[m] for m in (LINEAR, TO_OUT, TO_K, Q_PROJ)}, RANKS)
check_by_diffusers("old_diffusers", merged)
keep("old_diffusers", merged)

# A textual inversion of two vectors, with A1111's names and with diffusers'.
vectors = random(2, weight(PIPE, "text_model.embeddings.token_embedding").shape[1])
save_file({"emb_params": vectors}, f"{OUT}/word.embedding.safetensors")

for file in sorted(os.listdir(OUT)):
    print(f"{os.path.getsize(os.path.join(OUT, file)):8d}  {file}")
