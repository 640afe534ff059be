"""Writes schedulers_extra_golden.json: other predictions, spacings, solver orders and class defaults than schedulers_golden.json, UniPC and LCM.

    python schedulers_extra_golden.py       needs diffusers 0.42.1, torch and scipy

The model is the same closed form: eps(x, t) = 0.3 x + 0.1 sin(t / 100). Each run holds its scheduler_config.json and our name for
the scheduler. For a new scheduler, add its class to CLASSES; it then gets the cases that all have.
"""
import inspect, json, logging, pathlib, warnings
import numpy as np, torch, diffusers as D

warnings.filterwarnings("ignore"); D.logging.set_verbosity_error(); logging.disable(logging.WARNING)
SD = {"beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,
      "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "clip_sample": False}
CLASSES = {"DDIM": D.DDIMScheduler, "DDPM": D.DDPMScheduler, "PNDM": D.PNDMScheduler, "K-LMS": D.LMSDiscreteScheduler,
           "EULER-D": D.EulerDiscreteScheduler, "EULER-A": D.EulerAncestralDiscreteScheduler, "HEUN": D.HeunDiscreteScheduler,
           "DPM-M": D.DPMSolverMultistepScheduler, "DPM-S": D.DPMSolverSinglestepScheduler, "KDPM2-D": D.KDPM2DiscreteScheduler,
           "KDPM2-A": D.KDPM2AncestralDiscreteScheduler, "UNIPC": D.UniPCMultistepScheduler, "LCM": D.LCMScheduler}
CASES = []


def case(kind, note, **kw):
    CASES.append((kind, note, {**SD, **kw}))


for kind in CLASSES:
    case(kind, "v", prediction_type="v_prediction")
    # As a checkpoint with the marks v_pred and ztsnr is drawn. Some classes do not know the key.
    case(kind, "zero-snr", rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing")
    CASES.append((kind, "defaults", {"skip_prk_steps": True}))
for kind in ("DDIM", "DDPM", "K-LMS", "EULER-D", "HEUN", "DPM-M", "DPM-S", "UNIPC", "LCM"):
    case(kind, "sample", prediction_type="sample")
for kind in ("DDIM", "DDPM", "PNDM", "K-LMS", "EULER-A", "HEUN", "KDPM2-D", "KDPM2-A", "DPM-M", "UNIPC"):
    for spacing in ("leading", "trailing", "linspace"):
        case(kind, spacing, timestep_spacing=spacing)
for kind in ("HEUN", "KDPM2-D", "KDPM2-A", "DPM-S", "UNIPC"):
    case(kind, "karras", use_karras_sigmas=True)
case("EULER-D", "karras-ends", use_karras_sigmas=True, sigma_min=0.1, sigma_max=10.0)
case("EULER-D", "sigma_min", final_sigmas_type="sigma_min")
case("PNDM", "prk", skip_prk_steps=False, steps_offset=0)
case("PNDM", "one", set_alpha_to_one=True)
case("DDIM", "clip", clip_sample=True, set_alpha_to_one=True, steps_offset=0)
case("DDPM", "large", variance_type="fixed_large")
for kind in ("DDIM", "DDPM", "EULER-D", "EULER-A", "DPM-M", "UNIPC", "LCM"):
    for spacing in ("leading", "linspace"):
        case(kind, f"zero-snr-{spacing}", rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing=spacing)
for kind in ("EULER-D", "EULER-A", "DPM-M", "UNIPC"):
    case(kind, "zero-snr-epsilon", rescale_betas_zero_snr=True, timestep_spacing="trailing")
# The others find one timestep twice there, and fail.
case("EULER-D", "zero-snr-karras", rescale_betas_zero_snr=True, prediction_type="v_prediction", use_karras_sigmas=True)
case("EULER-D", "cosine", beta_schedule="squaredcos_cap_v2")
case("DPM-M", "cosine", beta_schedule="squaredcos_cap_v2", lambda_min_clipped=-5.1)
for order in (1, 2, 3):
    for solver_type in ("midpoint", "heun"):
        for algorithm in ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver"):
            for kind in ("DPM-M", "DPM-S"):
                if algorithm == "sde-dpmsolver" and (kind == "DPM-S" or order == 3):
                    continue
                kw = {} if "++" in algorithm else {"final_sigmas_type": "sigma_min"}
                case(kind, f"{algorithm}-{order}-{solver_type}", algorithm_type=algorithm, solver_order=order, solver_type=solver_type, **kw)
case("DPM-M", "euler_at_final", euler_at_final=True, final_sigmas_type="sigma_min", solver_order=3)
case("DPM-M", "not-lower", lower_order_final=False, solver_order=3)
for order in (1, 2, 3):
    for solver_type in ("bh1", "bh2"):
        # bh1's last step to sigma 0 is infinite times nothing: not finite in the reference either.
        kw = {"final_sigmas_type": "sigma_min"} if solver_type == "bh1" else {}
        case("UNIPC", f"{order}-{solver_type}", solver_order=order, solver_type=solver_type, **kw)
case("UNIPC", "eps-sigma_min", predict_x0=False, final_sigmas_type="sigma_min")
case("UNIPC", "no-corrector", disable_corrector=[0, 1])
case("UNIPC", "not-lower", lower_order_final=False, final_sigmas_type="sigma_min")
case("LCM", "100", original_inference_steps=100, timestep_scaling=3.0)


def model(x, t):
    return 0.3 * x + 0.1 * torch.sin(torch.as_tensor(float(t)) / 100)


def short(v):
    return float(str(np.float32(v)))


def run(cls, config, n, strength):
    s = cls.from_config(config)
    s.set_timesteps(n)
    g = torch.Generator().manual_seed(42)
    if strength is None:
        ts = s.timesteps
        x = torch.randn((1, 4, 8, 8), generator=g) * s.init_noise_sigma
    else:
        start = max(n - min(int(n * strength), n), 0) * s.order
        ts = s.timesteps[start:]
        if hasattr(s, "set_begin_index"):
            s.set_begin_index(start)
        x = s.add_noise(torch.linspace(-1, 1, 256).reshape(1, 4, 8, 8), torch.randn((1, 4, 8, 8), generator=g), ts[:1].repeat(1))
    kw = {"generator": g} if "generator" in inspect.signature(s.step).parameters else {}
    for t in ts:
        x = s.step(model(s.scale_model_input(x, t), t), t, x, **kw).prev_sample
    return {"timesteps": [short(t) for t in ts], "sigmas": [short(v) for v in s.sigmas] if hasattr(s, "sigmas") and n <= 20 else None,
            "init_noise_sigma": short(s.init_noise_sigma), "order": s.order, "model_calls": len(ts),
            "final": [short(v) for v in x.flatten()[:8]], "mean": short(x.mean()), "std": short(x.std())}


out = {"diffusers": D.__version__, "torch": torch.__version__, "runs": []}
for kind, note, config in CASES:
    for n, strength in ((1, None), (2, None), (3, None), (7, None), (20, None), (50, None), (7, 0.6), (20, 0.75)):
        entry = {"kind": kind, "note": note, "config": config, "steps": n, "strength": strength}
        try:
            entry.update(run(CLASSES[kind], config, n, strength))
        except Exception as e:
            entry["error"] = f"{type(e).__name__}: {e}"[:160]
        if not np.isfinite(entry.get("std", 0.0)):
            entry = {k: entry[k] for k in ("kind", "note", "config", "steps", "strength")} | {"error": "not finite"}
        out["runs"].append(entry)
text = json.dumps(out, separators=(",", ":")).replace('{"kind"', '\n{"kind"')
pathlib.Path(__file__).with_name("schedulers_extra_golden.json").write_text(text + "\n")
print(len(out["runs"]), "runs", sorted({(r["kind"], r["note"], r["steps"], r["strength"] or 0, r["error"]) for r in out["runs"] if "error" in r}))
