"""Step 4: write tests/models/tiny-sd-onnx/ in the folder layout of Stable Diffusion v1 ONNX exports (optimum names) and check it against torch.

Weights are stored as float16 initialisers, each followed by a Cast to float32. ONNX Runtime folds these casts when it
loads the file, so the maths runs in float32 and the files are half as big.
The UNet takes float timesteps of shape [batch], so that fractional ones are exact and rows may stand at different steps.
usage: export_onnx.py [folder]
"""
import json, os, sys
import numpy as np, onnx, torch, onnxruntime as ort
from onnx import helper, numpy_helper, TensorProto
from models import *

OUT = sys.argv[1] if len(sys.argv) > 1 else os.path.join(MODEL, "..", "..", "tests", "models", "tiny-sd-onnx")
OPSET = 17


def halve(path):
    """float32 initialisers -> float16 + Cast. Scalars and tiny vectors stay as they are."""
    m = onnx.load(path)
    g, casts = m.graph, []
    for init in list(g.initializer):
        if init.data_type != TensorProto.FLOAT: continue
        a = numpy_helper.to_array(init)
        if a.size < 64: continue
        assert np.abs(a).max() < 65000, init.name
        name = init.name
        g.initializer.remove(init)
        g.initializer.append(numpy_helper.from_array(a.astype(np.float16), name + "_fp16"))
        casts.append(helper.make_node("Cast", [name + "_fp16"], [name], to=TensorProto.FLOAT, name=f"Cast_{name}"))
    for c in reversed(casts): g.node.insert(0, c)
    for n in g.node: n.doc_string = ""
    onnx.checker.check_model(m)
    onnx.save(m, path)


class Text(torch.nn.Module):
    def __init__(s, m): super().__init__(); s.m = m
    def forward(s, input_ids): return s.m(input_ids.long()).last_hidden_state


class UNet(torch.nn.Module):
    def __init__(s, m): super().__init__(); s.m = m
    def forward(s, sample, timestep, encoder_hidden_states):
        return s.m(sample, timestep, encoder_hidden_states, return_dict=False)[0]


class Decoder(torch.nn.Module):
    def __init__(s, m): super().__init__(); s.m = m
    def forward(s, latent_sample): return s.m.decode(latent_sample, return_dict=False)[0]


class Encoder(torch.nn.Module):                                        # 8 channels: 4 means, 4 log-variances
    def __init__(s, m): super().__init__(); s.m = m
    def forward(s, sample): return s.m.quant_conv(s.m.encoder(sample))


def export(name, module, args, inputs, output, axes, config):
    os.makedirs(f"{OUT}/{name}", exist_ok=True)
    path = f"{OUT}/{name}/model.onnx"
    torch.onnx.export(module, args, path, input_names=inputs, output_names=[output], dynamic_axes=axes,
                      opset_version=OPSET, dynamo=False, do_constant_folding=True)
    halve(path)
    json.dump(config, open(f"{OUT}/{name}/config.json", "w"), indent=2)
    return path


def check(name, path, module, cases):
    """Compare with torch. Torch weights are rounded to fp16 first so that only the graph is under test."""
    s = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for args in cases:
        feed = {i.name: a.numpy() for i, a in zip(s.get_inputs(), args)}
        got = s.run(None, feed)[0]
        with torch.no_grad(): ref = module(*args).numpy()
        err = np.abs(got - ref).max()
        print(f"  {name:12s} {[tuple(a.shape) for a in args]} -> {got.shape}  max|diff| {err:.2e}  (max|ref| {np.abs(ref).max():.2f})")
        assert got.shape == ref.shape and err < 2e-3 * max(1, np.abs(ref).max())


def main():
    tok = build_tokenizer(); text = build_text(tok); unet = build_unet(); vae = build_vae()
    ck = torch.load(f"{WORK}/diffusion.pt")
    text.load_state_dict(ck["text"]); unet.load_state_dict(ck["unet"]); vae.load_state_dict(torch.load(f"{WORK}/vae.pt"))
    for m in (text, unet, vae):
        m.eval()
        for p in m.parameters(): p.data = p.data.half().float()
    vae.register_to_config(scaling_factor=json.load(open(f"{WORK}/vae.json"))["scaling_factor"])
    clean = lambda c: {k: v for k, v in dict(c).items() if k not in ("_name_or_path", "_use_default_values")}
    vae_cfg = {"_class_name": "AutoencoderKL", **clean(vae.config)}
    unet_cfg = {"_class_name": "UNet2DConditionModel", **clean(unet.config)}
    text_cfg = json.loads(text.config.to_json_string(use_diff=False)) | {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model"}
    keep = ("architectures", "model_type", "vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads",
            "max_position_embeddings", "hidden_act", "layer_norm_eps", "bos_token_id", "eos_token_id", "pad_token_id", "attention_dropout", "initializer_factor", "initializer_range")
    text_cfg = {k: text_cfg[k] for k in keep if k in text_cfg}

    t, u, d, e = Text(text), UNet(unet), Decoder(vae), Encoder(vae)
    ids = torch.randint(0, len(tok), (2, 77), dtype=torch.int32)
    lat = torch.randn(2, 4, 16, 16); ctx = torch.randn(2, 77, TEXT_DIM); ts = torch.tensor([500.0, 500.0])   # float, one per row: Euler, LMS, Heun use fractional timesteps
    p1 = export("text_encoder", t, (ids,), ["input_ids"], "last_hidden_state", {"input_ids": {0: "batch", 1: "sequence"}, "last_hidden_state": {0: "batch", 1: "sequence"}}, text_cfg)
    p2 = export("unet", u, (lat, ts, ctx), ["sample", "timestep", "encoder_hidden_states"], "out_sample",
                {"sample": {0: "batch", 2: "height", 3: "width"}, "timestep": {0: "batch"}, "encoder_hidden_states": {0: "batch", 1: "sequence"}, "out_sample": {0: "batch", 2: "height", 3: "width"}}, unet_cfg)
    p3 = export("vae_decoder", d, (lat,), ["latent_sample"], "sample", {"latent_sample": {0: "batch", 2: "height", 3: "width"}, "sample": {0: "batch", 2: "height", 3: "width"}}, vae_cfg)
    p4 = export("vae_encoder", e, (torch.randn(2, 3, 128, 128),), ["sample"], "latent_parameters", {"sample": {0: "batch", 2: "height", 3: "width"}, "latent_parameters": {0: "batch", 2: "height", 3: "width"}}, vae_cfg)

    r = torch.randn
    check("text_encoder", p1, t, [(torch.randint(0, len(tok), (b, 77), dtype=torch.int32),) for b in (1, 4)])
    check("unet", p2, u, [(r(b, 4, h, w), torch.full((b,), k + 0.42), r(b, 77, TEXT_DIM)) for b, h, w, k in ((1, 16, 16, 999), (4, 16, 16, 1), (2, 32, 32, 300), (2, 16, 24, 20))]
          + [(r(2, 4, 16, 16), torch.tensor([10.5, 900.25]), r(2, 77, TEXT_DIM))])
    check("vae_decoder", p3, d, [(r(b, 4, h, w),) for b, h, w in ((1, 16, 16), (3, 16, 16), (1, 32, 32), (2, 16, 24))])
    check("vae_encoder", p4, e, [(r(b, 3, h, w),) for b, h, w in ((1, 128, 128), (3, 128, 128), (1, 256, 256), (2, 128, 192))])

    os.makedirs(f"{OUT}/scheduler", exist_ok=True)
    json.dump({"_class_name": "PNDMScheduler", "_diffusers_version": "0.42.1", **SCHEDULE, "set_alpha_to_one": False, "skip_prk_steps": True,
               "steps_offset": 1, "trained_betas": None, "clip_sample": False}, open(f"{OUT}/scheduler/scheduler_config.json", "w"), indent=2)
    json.dump({"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1", "requires_safety_checker": False,
               "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
               "vae": ["diffusers", "AutoencoderKL"], "scheduler": ["diffusers", "PNDMScheduler"], "feature_extractor": [None, None],
               "safety_checker": [None, None]}, open(f"{OUT}/model_index.json", "w"), indent=2)
    total = 0
    for root, _, files in os.walk(OUT):
        for f in sorted(files):
            n = os.path.getsize(os.path.join(root, f)); total += n
            print(f"{n:>10,}  {os.path.relpath(os.path.join(root, f), OUT)}")
    print(f"{total:>10,}  total")


if __name__ == "__main__":
    main()
