"""Writes guidance.json: predictions before and after diffusers' `rescale_noise_cfg`.

    pip install diffusers==0.42.1 transformers torch
    python tests/golden/guidance.py
"""
import json, os, torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

torch.manual_seed(0)
cases = []
for scale, rescale in ((7.5, 0.7), (7.5, 0.0), (20.0, 1.0), (3.0, 0.25)):
    conditional, unconditional = torch.randn(1, 4, 3, 5) * 1.1, torch.randn(1, 4, 3, 5) + 0.1
    guided = unconditional + scale * (conditional - unconditional)
    rescaled = rescale_noise_cfg(guided, conditional, guidance_rescale=rescale)
    flat = lambda tensor: tensor.flatten().tolist()
    cases.append(dict(rescale=rescale, conditional=flat(conditional), guided=flat(guided), rescaled=flat(rescaled)))
json.dump(cases, open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "guidance.json"), "w"), indent=0)
