"""The three networks and a small sampling helper (torch side)."""
import os, torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from diffusers import UNet2DConditionModel, DPMSolverMultistepScheduler
from common import build_vae, SIZE, WORK, json

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.dirname(HERE)  # the model folder that these scripts make
SCHEDULE = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="epsilon")
TEXT_DIM = 160


def build_tokenizer():
    return CLIPTokenizer.from_pretrained(f"{MODEL}/tokenizer")


class PlainAttention:
    """softmax(QK)V with bmm. For training only: 1.5x faster here than torch's CPU flash kernel at these tiny head sizes."""
    def __call__(self, attn, h, encoder_hidden_states=None, attention_mask=None, temb=None, **kw):
        e, n = (h if encoder_hidden_states is None else encoder_hidden_states), attn.heads
        split = lambda z: z.view(z.shape[0], z.shape[1], n, -1).transpose(1, 2).reshape(z.shape[0] * n, z.shape[1], -1)
        q, k, v = split(attn.to_q(h)), split(attn.to_k(e)), split(attn.to_v(e))
        w = torch.bmm(q * attn.scale, k.transpose(1, 2)).softmax(-1, dtype=q.dtype)
        o = torch.bmm(w, v).view(h.shape[0], n, h.shape[1], -1).transpose(1, 2).reshape(h.shape[0], h.shape[1], -1)
        return attn.to_out[0](o)


def build_text(tok):
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tok), hidden_size=TEXT_DIM, intermediate_size=512, projection_dim=TEXT_DIM, num_hidden_layers=3, num_attention_heads=5,
        max_position_embeddings=77, hidden_act="quick_gelu", bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id,
        pad_token_id=tok.pad_token_id))


def build_unet():
    return UNet2DConditionModel(
        sample_size=SIZE // 8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(48, 96, 160), norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=TEXT_DIM, attention_head_dim=4)   # diffusers' odd name: this is the NUMBER of heads, as in SD v1


def encode_text(tok, text, prompts):
    ids = tok(prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    return text(ids).last_hidden_state


@torch.no_grad()
def sample(tok, text, unet, vae, prompts, steps=20, guidance=4.0, size=SIZE, seed=0, chunk=32, height=None, width=None):
    scale = json.load(open(f"{WORK}/vae.json"))["scaling_factor"]
    outs = []
    for k in range(0, len(prompts), chunk):
        part = prompts[k:k + chunk]
        ctx = encode_text(tok, text, [""] * len(part) + part)
        sch = DPMSolverMultistepScheduler(**SCHEDULE, algorithm_type="dpmsolver++", solver_order=2, timestep_spacing="leading", steps_offset=1)
        sch.set_timesteps(steps)
        g = torch.Generator().manual_seed(seed + k)
        x = torch.randn(len(part), 4, (height or size) // 8, (width or size) // 8, generator=g) * sch.init_noise_sigma
        for t in sch.timesteps:
            e = unet(torch.cat([x, x]), t, ctx).sample
            eu, ec = e.float().chunk(2)
            x = sch.step(eu + guidance * (ec - eu), t, x).prev_sample
        outs.append(vae.decode(x / scale).sample.clamp(-1, 1))
    return torch.cat(outs)


def sheet(images, prompts, path, cols=8, zoom=1):
    """Contact sheet with the prompt under each picture."""
    from PIL import Image, ImageDraw
    h, w = images.shape[-2] * zoom, images.shape[-1] * zoom
    arr = ((images + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    rows = -(-len(prompts) // cols)
    S = Image.new("RGB", (cols * (w + 4), rows * (h + 26)), "white"); d = ImageDraw.Draw(S)
    for i, p in enumerate(prompts):
        x, y = (i % cols) * (w + 4), (i // cols) * (h + 26)
        S.paste(Image.fromarray(arr[i]).resize((w, h), Image.BICUBIC if zoom > 1 else Image.NEAREST), (x, y))
        half = p if len(p) < 24 else p[:24] + "\n" + p[24:]
        d.text((x + 2, y + h), half, fill="black", spacing=0)
    S.save(path)
