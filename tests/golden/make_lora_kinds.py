"""Writes files of every kind of LoRA into lora/, small ones for the default model, and the weights after the kind's own
package merged each: LyCORIS' (lycoris-lora) and PEFT's.

    pip install torch diffusers transformers peft lycoris-lora safetensors
    python tests/golden/make_lora_kinds.py

Each NAME.safetensors has a NAME.merged.safetensors beside it with every STRIDE-th value of the merged parameters. PEFT's
adapters are in folders of their own, with their configuration.

LyCORIS 4.1.3 multiplies LoHa and LoKr by alpha / rank twice in merge_to(), and once in forward(), which is what was
trained, and what A1111, ComfyUI and PEFT do. The merged weights of those with another alpha are forward()'s.
"""
import json, os, shutil, warnings
import torch
from diffusers import UNet2DConditionModel
from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.full import FullModule
from lycoris.modules.glora import GLoRAModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from lycoris.modules.norms import NormModule
from peft import BOFTConfig, IA3Config, LoHaConfig, LoKrConfig, LoraConfig, OFTConfig, get_peft_model
import peft.tuners.boft.layer as boft_layer
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

warnings.filterwarnings("ignore")
HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.join(HERE, "..", "..", "models", "tiny-sd")
OUT = os.path.join(HERE, "lora")
STRIDE = 13
torch.manual_seed(11)

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
LINEAR = f"{BLOCK}.attn1.to_q"
TO_OUT = f"{BLOCK}.attn1.to_out.0"
TO_K = f"{BLOCK}.attn2.to_k"  # not square
FF = f"{BLOCK}.ff.net.2"
POINT = "down_blocks.0.attentions.0.proj_in"
CONV = "down_blocks.0.resnets.0.conv1"
STRIDED = "down_blocks.0.downsamplers.0.conv"
CONV_OUT = "conv_out"
GROUP_NORM = "down_blocks.0.resnets.0.norm1"
LAYER_NORM = f"{BLOCK}.norm2"
Q_PROJ = "text_model.encoder.layers.0.self_attn.q_proj"
FC1 = "text_model.encoder.layers.0.mlp.fc1"
FINAL_NORM = "text_model.final_layer_norm"


def unet():
    model = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(f"{MODEL}/unet"))
    model.load_state_dict({k: v.float() for k, v in load_file(f"{MODEL}/unet/diffusion_pytorch_model.fp16.safetensors").items()})
    return model


def text_encoder():
    config = {k: v for k, v in json.load(open(f"{MODEL}/text_encoder/config.json")).items() if k != "architectures"}
    model = CLIPTextModel(CLIPTextConfig(**config))
    named = {k: v.float() for k, v in load_file(f"{MODEL}/text_encoder/model.fp16.safetensors").items()}
    if not set(model.state_dict()) <= set(named):  # newer transformers leave the first part of the names out
        named = {k.removeprefix("text_model."): v for k, v in named.items()}
    model.load_state_dict(named, strict=False)
    return model


def layer(module):
    """A fresh copy of one layer."""
    model = text_encoder() if module.startswith("text_model") else unet()
    names = {n for n, _ in model.named_modules()}
    return model.get_submodule(module if module in names else module.removeprefix("text_model."))


def keep(name, merged, stride=STRIDE):
    flat = {k: w.detach().reshape(-1)[::stride].contiguous().clone() for k, w in merged.items()}
    save_file(flat, f"{OUT}/{name}.merged.safetensors")


def flat(module):
    return ("lora_te_" if module.startswith("text_model") else "lora_unet_") + module.replace(".", "_")


def randomise(module, sizes=0.4):
    """Weights as if it was trained."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(parameter + torch.randn_like(parameter) * 0.1 if "dora" in name or "rescale" in name else torch.randn_like(parameter) * sizes)


def trained(module, scale):
    """forward()'s weight of a LoHa or LoKr: alpha / rank counts once."""
    diff = module.get_weight(module.shape) * module.scalar
    if module.wd:
        return module.apply_weight_decompose(module.org_weight + diff, scale)
    return module.org_weight + diff * scale


def lycoris(name, kinds, scale=1.0):
    """A file with a LyCORIS module for each layer: module -> (class, arguments)."""
    tensors, merged = {}, {}
    for module, (kind, arguments) in kinds.items():
        base = layer(module)
        before = base.weight.detach().clone()
        network = kind(flat(module), base, 1.0, **arguments).eval()
        randomise(network)
        with torch.no_grad():
            state = network.state_dict()
            if kind is FullModule:
                # Before apply_to() it holds the difference itself, while state_dict() takes it for the sum.
                state = {k: v for k, v in {"diff": network.weight, "diff_b": network.bias}.items() if v is not None}
            for key, value in state.items():
                tensors[f"{flat(module)}.{key}"] = value.detach().clone().contiguous()
            weight = trained(network, scale) if kind in (LohaModule, LokrModule) else None
            network.merge_to(scale)
            if weight is None or abs(network.scale - 1) < 1e-6:
                assert weight is None or torch.allclose(weight, base.weight, atol=1e-6), module
                weight = base.weight
        assert (weight - before).abs().max() > 1e-4, f"{name}: {module} is unchanged"
        merged[f"{module}.weight"] = weight
        if any(key in ("diff_b", "b_norm") for key in state):
            merged[f"{module}.bias"] = base.bias
    save_file(tensors, f"{OUT}/{name}.safetensors", metadata={"ss_network_module": "lycoris.kohya"})
    keep(name, merged)


def peft(name, config, parameters, train=None):
    """An adapter of the UNet as PEFT saves it, and the merged values of these parameters."""
    model = get_peft_model(unet(), config)
    with torch.no_grad():
        for key, value in model.named_parameters():
            if value.requires_grad:
                near = 1.0 if any(word in key for word in ("ia3_l", "boft_s", "magnitude")) else 0.0
                base = value if "magnitude" in key else torch.full_like(value, near)
                value.copy_(base + torch.randn_like(value) * 0.1)
    folder = f"{OUT}/{name}"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    saved = json.load(open(f"{folder}/adapter_config.json"))
    kept = ("peft_type", "r", "alpha", "lora_alpha", "alpha_pattern", "rank_pattern", "use_rslora", "use_dora", "lora_bias", "feedforward_modules",
            "target_modules", "oft_block_size", "use_cayley_neumann", "num_cayley_neumann_terms", "coft", "eps", "block_share", "boft_block_size")
    saved = {k: sorted(v) if isinstance(v, list) else v for k, v in saved.items() if k in kept}
    json.dump(saved, open(f"{folder}/adapter_config.json", "w"), indent=1)
    for file in os.listdir(folder):
        if file not in ("adapter_config.json", "adapter_model.safetensors"):
            os.remove(f"{folder}/{file}")
    before = unet().state_dict()
    after = model.merge_and_unload().state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed == set(parameters), f"{name}: {changed ^ set(parameters)}"
    keep(f"{name}/adapter_model", {k: after[k] for k in parameters})


os.makedirs(OUT, exist_ok=True)
rank = lambda r, alpha, **more: dict(lora_dim=r, alpha=alpha, **more)

lycoris("loha", {
    LINEAR: (LohaModule, rank(2, 2)), TO_K: (LohaModule, rank(3, 1.5)), POINT: (LohaModule, rank(2, 2)),
    CONV: (LohaModule, rank(2, 2, use_tucker=True)), STRIDED: (LohaModule, rank(2, 1)), Q_PROJ: (LohaModule, rank(2, 2)),
}, 0.7)
lycoris("lokr", {
    LINEAR: (LokrModule, rank(2, 2, factor=4)), TO_K: (LokrModule, rank(2, 1, factor=4, full_matrix=True)),
    POINT: (LokrModule, rank(2, 1, factor=6)), CONV: (LokrModule, rank(2, 1, factor=4, use_tucker=True)),
    STRIDED: (LokrModule, rank(1, 1, factor=8, decompose_both=True)), Q_PROJ: (LokrModule, rank(2, 2, factor=8)),
    FC1: (LokrModule, rank(1, 0.5, factor=8, decompose_both=True)),
}, 0.7)
lycoris("glora", {
    LINEAR: (GLoRAModule, rank(2, 1)), TO_K: (GLoRAModule, rank(2, 2)), POINT: (GLoRAModule, rank(2, 1)),
    CONV: (GLoRAModule, rank(2, 2)), Q_PROJ: (GLoRAModule, rank(3, 1)),
}, 0.7)
lycoris("ia3", {
    LINEAR: (IA3Module, {}), TO_K: (IA3Module, dict(train_on_input=True)), CONV: (IA3Module, {}),
    CONV_OUT: (IA3Module, dict(train_on_input=True)), FC1: (IA3Module, {}),
}, 0.7)
out_of, on_input = dict(weight_decompose=True), dict(weight_decompose=True, wd_on_out=False)
lycoris("dora", {
    LINEAR: (LoConModule, rank(2, 1, **out_of)), TO_K: (LoConModule, rank(2, 2, **on_input)), CONV: (LoConModule, rank(1, 1, **on_input)),
    CONV_OUT: (LoConModule, rank(1, 1, use_tucker=True, **out_of)), TO_OUT: (LohaModule, rank(2, 1, **out_of)),
    POINT: (LokrModule, rank(2, 1, factor=6, **on_input)), Q_PROJ: (LoConModule, rank(2, 1, **out_of)),
}, 0.7)
lycoris("full", {
    LINEAR: (FullModule, {}), TO_OUT: (FullModule, {}), CONV_OUT: (FullModule, {}), GROUP_NORM: (NormModule, {}),
    LAYER_NORM: (NormModule, {}), FINAL_NORM: (NormModule, {}),
}, 0.7)
lycoris("oft", {
    LINEAR: (DiagOFTModule, dict(lora_dim=4)), TO_K: (DiagOFTModule, dict(lora_dim=8, rescaled=True)),
    CONV: (DiagOFTModule, dict(lora_dim=4, constraint=1e-3)), POINT: (DiagOFTModule, dict(lora_dim=6, constraint=1e-3, rescaled=True)),
    FC1: (DiagOFTModule, dict(lora_dim=8)),
}, 0.7)
lycoris("boft", {
    LINEAR: (ButterflyOFTModule, dict(lora_dim=6)), TO_K: (ButterflyOFTModule, dict(lora_dim=6, rescaled=True)),
    CONV: (ButterflyOFTModule, dict(lora_dim=6, constraint=1e-3)), Q_PROJ: (ButterflyOFTModule, dict(lora_dim=10)),
}, 0.7)
# Each of its modules is of another kind.
lycoris("mixed", {
    LINEAR: (LoConModule, rank(2, 1)), TO_K: (LohaModule, rank(2, 2)), POINT: (LokrModule, rank(2, 2, factor=6)), CONV_OUT: (FullModule, {}),
    TO_OUT: (IA3Module, {}), CONV: (DiagOFTModule, dict(lora_dim=4)), LAYER_NORM: (NormModule, {}), Q_PROJ: (GLoRAModule, rank(2, 2)),
})

# LyCORIS before 2.1: the rotations themselves.
network = DiagOFTModule("x", layer(LINEAR), 1.0, lora_dim=4)
randomise(network, 0.3)
with torch.no_grad():
    save_file({f"{flat(LINEAR)}.oft_diag": network.get_r().contiguous()}, f"{OUT}/oft_diag.safetensors")
    keep("oft_diag", {f"{LINEAR}.weight": network.get_merged_weight(0.5)[0]})

weights = lambda *modules: [f"{m}.weight" for m in modules]
peft("peft_loha", LoHaConfig(r=2, alpha=3, target_modules=[LINEAR, CONV], use_effective_conv2d=True), weights(LINEAR, CONV))
peft("peft_lokr", LoKrConfig(r=2, alpha=3, target_modules=[LINEAR, TO_K, POINT], rank_pattern={TO_K: 64}), weights(LINEAR, TO_K, POINT))
peft("peft_dora", LoraConfig(r=2, lora_alpha=3, use_dora=True, target_modules=[LINEAR, TO_K, CONV]), weights(LINEAR, TO_K, CONV))
peft("peft_bias", LoraConfig(r=2, lora_alpha=3, use_rslora=True, lora_bias=True, target_modules=[TO_OUT, CONV_OUT]),
     weights(TO_OUT, CONV_OUT) + [f"{TO_OUT}.bias", f"{CONV_OUT}.bias"])
peft("peft_ia3", IA3Config(target_modules=[TO_OUT, TO_K, FF, CONV, STRIDED], feedforward_modules=[FF, STRIDED]),
     weights(TO_OUT, TO_K, FF, CONV, STRIDED) + [f"{TO_OUT}.bias", f"{CONV}.bias"])
peft("peft_oft", OFTConfig(oft_block_size=8, target_modules=[LINEAR, TO_K, CONV_OUT]), weights(LINEAR, TO_K, CONV_OUT))
peft("peft_oft_exact", OFTConfig(oft_block_size=8, use_cayley_neumann=False, coft=True, eps=2.0, block_share=True, target_modules=[LINEAR, CONV_OUT]),
     weights(LINEAR, CONV_OUT))
peft("peft_boft", BOFTConfig(boft_block_size=8, target_modules=[LINEAR, TO_K, CONV_OUT]), weights(LINEAR, TO_K, CONV_OUT))


class Blocks:
    """Stands for PEFT's CUDA kernel, without which it has one stage only."""
    @staticmethod
    def apply(stages):
        return torch.stack([torch.block_diag(*stage) for stage in stages])


boft_layer.get_fbd_cuda, boft_layer.FastBlockDiag = (lambda: True), Blocks
peft("peft_boft_stages", BOFTConfig(boft_block_size=4, boft_n_butterfly_factor=3, target_modules=[LINEAR, TO_K]), weights(LINEAR, TO_K))


def numbered(name, old, extended):
    """The first trainer's file: it walks through classes, and in each through its linear layers (and convolutions)."""
    tensors, notes, merged = {}, {}, {}
    parts = {"unet": (unet(), {"Attention", "GEGLU"} | ({"ResnetBlock2D"} if extended else set())), "text_encoder": (text_encoder(), {"CLIPAttention"})}
    for part, (model, classes) in parts.items():
        # Until 0.14, diffusers made a block's feed-forward layer between its two attentions.
        for block in (m for m in model.modules() if old and type(m).__name__ == "BasicTransformerBlock"):
            order = ["attn1", "ff", "attn2", "norm1", "norm2", "norm3"]
            block._modules = {k: block._modules[k] for k in order}
        notes[part] = json.dumps(sorted(classes))
        kinds = (torch.nn.Linear, torch.nn.Conv2d) if extended else (torch.nn.Linear,)
        names = {m: n for n, m in model.named_modules()}
        found = [c for m in model.modules() if type(m).__name__ in classes for c in m.modules() if isinstance(c, kinds)]
        for index, child in enumerate(found):
            shape = child.weight.shape
            up, down = torch.randn(shape[0], 1, *[1] * (len(shape) - 2)) * 0.1, torch.randn(1, *shape[1:]) * 0.1
            up, down = up.half(), down.half()
            tensors[f"{part}:{index}:up"], tensors[f"{part}:{index}:down"] = up, down
            notes[f"{part}:{index}:rank"] = "1"
            path = names[child] if part == "unet" or names[child].startswith("text_model.") else f"text_model.{names[child]}"
            merged[f"{path}.weight"] = child.weight + (up.flatten(1).float() @ down.flatten(1).float()).reshape(shape)
    for word in ("<s1>", "<s2>"):
        tensors[word], notes[word] = torch.randn(160) * 0.1, "<embed>"
    save_file(tensors, f"{OUT}/{name}.safetensors", metadata=notes)
    keep(name, merged, 997)


numbered("numbered", True, False)
numbered("numbered_resnets", False, True)

total = 0
for folder, _, files in sorted(os.walk(OUT)):
    for file in sorted(files):
        size = os.path.getsize(os.path.join(folder, file))
        total += size
        print(f"{size:8d}  {os.path.relpath(os.path.join(folder, file), OUT)}")
print(f"{total:8d}")
