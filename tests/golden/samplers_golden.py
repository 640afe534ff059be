"""Writes samplers_golden.json: k-diffusion's samplers, diffusers' DEIS and TCD, and every spacing, with the closed-form model of schedulers_golden.py.

    python samplers_golden.py       needs diffusers 0.42.1, torch, torchsde, scipy and k-diffusion's sampling.py

The model is eps(x, t) = 0.3 x + 0.1 sin(t / 100) on the input of unit variance. The spacings that diffusers lacks follow the rules of A1111's
modules/sd_schedulers.py. k-diffusion's samplers get the sigmas of those rules; diffusers' classes get them in place of their Karras sigmas, so that the
rest is the class's own. Noise is one torch generator of seed 42, first for the latents and then for the steps, or k-diffusion's Brownian tree of that seed.
"""
import inspect, json, logging, math, pathlib, warnings
import numpy as np, torch, diffusers as D
from scipy import stats
from brownian_golden import k_sampling

warnings.filterwarnings("ignore"); D.logging.set_verbosity_error(); logging.disable(logging.WARNING)
K = k_sampling()
SD = {"beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,
      "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "clip_sample": False}
ALPHAS = torch.cumprod(1 - torch.linspace(SD["beta_start"] ** 0.5, SD["beta_end"] ** 0.5, 1000) ** 2, 0)
TABLE = (((1 - ALPHAS) / ALPHAS) ** 0.5).numpy()
LOGS = np.log(TABLE.astype(np.float64))
LOW, HIGH = float(TABLE[0]), float(TABLE[-1])
SHAPE = (1, 4, 8, 8)


def sigma_of(t):
    return np.exp(np.interp(t, np.arange(1000), LOGS))


def time_of(sigma):
    return np.interp(np.log(sigma), LOGS, np.arange(1000))


def spaced(name, n):
    """The sigmas of a spacing, with the one at which the last step ends."""
    even = np.linspace(0, 1, n)
    if name == "karras":
        s = (HIGH ** (1 / 7) + even * (LOW ** (1 / 7) - HIGH ** (1 / 7))) ** 7
    elif name in ("exponential", "polyexponential"):
        s = np.exp(math.log(HIGH) + even * (math.log(LOW) - math.log(HIGH)))
    elif name == "sgm_uniform":
        s = sigma_of(np.linspace(999, 0, n + 1)[:-1])
    elif name in ("normal", "uniform"):
        s = sigma_of(np.linspace(999, 0, n))
    elif name == "simple":
        s = np.array([TABLE[-(1 + int(i * (1000 / n)))] for i in range(n)])
    elif name == "ddim_uniform":
        s = TABLE[1::max(1000 // n, 1)][::-1]
    elif name == "beta":
        s = LOW + stats.beta.ppf(1 - even, 0.6, 0.6) * (HIGH - LOW)
    elif name == "align_your_steps":
        points = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029]
        s = np.exp(np.interp(np.linspace(0, 1, n), np.linspace(0, 1, 11), np.log(points[::-1])))[::-1]
    elif name == "kl_optimal":
        steps = np.arange(n + 1) / n
        return np.tan(steps * math.atan(LOW) + (1 - steps) * math.atan(HIGH)).astype(np.float32)
    elif name == "linspace":
        s = np.interp(np.linspace(0, 999, n)[::-1], np.arange(1000), TABLE)
    else:
        raise ValueError(name)
    return np.append(s, 0.0).astype(np.float32)


def eps(x, t):
    return 0.3 * x + 0.1 * math.sin(t / 100)


def denoiser(x, sigma, **_):
    sigma = float(sigma[0])
    return x - sigma * eps(x / math.sqrt(sigma ** 2 + 1), float(time_of(sigma)))


def image():
    return torch.linspace(-1, 1, 256).reshape(SHAPE)


def start(n, strength):
    return n - min(int(n * strength), n) if strength is not None else 0


def by_k_diffusion(function, spacing, n, strength, own_noise, kw):
    sigmas = torch.from_numpy(spaced(spacing, n))
    g = torch.Generator().manual_seed(42)
    x = torch.randn(SHAPE, generator=g)
    first = start(n, strength)
    if strength is None:
        x = x * sigmas[0]
    else:
        x = image() + x * sigmas[first]
    kw = dict(kw)
    fresh = lambda *_: torch.randn(SHAPE, generator=g)
    if own_noise == "tree":
        kw["noise_sampler"] = K.BrownianTreeNoiseSampler(x, sigmas[sigmas > 0].min(), sigmas.max(), seed=42)
    elif own_noise:
        kw["noise_sampler"] = fresh
    K.torch = types_like(torch, randn_like=fresh)
    try:
        x = getattr(K, function)(denoiser, x, sigmas[first:], disable=True, **kw)
    except UnboundLocalError:
        return None  # its SDE samplers fail after a single step to 0
    return {"sigmas": [float(s) for s in sigmas] if n <= 5 else None, **summary(x)}


class types_like:
    """torch with some functions replaced."""
    def __init__(self, module, **replaced):
        self.__dict__.update(replaced); self._module = module
    def __getattr__(self, name):
        return getattr(self._module, name)


def by_diffusers(cls, config, spacing, n, strength, kw):
    s = cls.from_config({**SD, **config})
    if spacing is not None:
        sigmas = spaced(spacing, n).astype(np.float64)
        s._convert_to_karras = lambda **_: sigmas[:-1].copy()
    if config.get("use_exponential_sigmas") or config.get("use_beta_sigmas"):
        # Where timesteps are cut to whole numbers, the last bit of the processor's square root would make 998 of 998.9999.
        exact = s._sigma_to_t
        s._sigma_to_t = lambda sigma, logs: (lambda t: np.where(np.ceil(t) - t < 1e-3, np.ceil(t), t))(exact(sigma, logs))
    s.set_timesteps(n)
    g = torch.Generator().manual_seed(42)
    x = torch.randn(SHAPE, generator=g)
    first = start(n, strength) * s.order
    ts = s.timesteps[first:]
    if strength is None:
        x = x * s.init_noise_sigma
    else:
        s.set_begin_index(first)
        x = s.add_noise(image(), x, ts[:1].repeat(1))
    if "generator" in inspect.signature(s.step).parameters:
        kw = {"generator": g, **kw}
    for t in ts:
        x = s.step(eps(s.scale_model_input(x, t), float(t)), t, x, **kw).prev_sample
    return {"timesteps": [float(t) for t in ts], **summary(x)}


def summary(x):
    values = x.flatten()
    return {"final": [float(v) for v in values[:8]], "mean": float(x.mean()), "std": float(x.std())}


COUNTS = ((1, None), (2, None), (5, None), (20, None), (5, 0.6), (20, 0.75))
SPACINGS = ("karras", "exponential", "polyexponential", "sgm_uniform", "simple", "normal", "ddim_uniform", "beta", "align_your_steps", "kl_optimal", "uniform")
# Our name: the function, and how its noise comes.
FUNCTIONS = {"EULER-D": ("sample_euler", None, {}), "EULER-A": ("sample_euler_ancestral", "fresh", {}), "HEUN": ("sample_heun", None, {}),
             "K-LMS": ("sample_lms", None, {}), "KDPM2-D": ("sample_dpm_2", None, {}), "KDPM2-A": ("sample_dpm_2_ancestral", "fresh", {}),
             "DPM-2S-A": ("sample_dpmpp_2s_ancestral", "fresh", {}), "DPM-SDE": ("sample_dpmpp_sde", "tree", {}), "DPM-M-SDE": ("sample_dpmpp_2m_sde", "tree", {}),
             "DPM-M-SDE-HEUN": ("sample_dpmpp_2m_sde", "tree", {"solver_type": "heun"}), "DPM-3M-SDE": ("sample_dpmpp_3m_sde", "tree", {})}
NEW = ("DPM-2S-A", "DPM-SDE", "DPM-M-SDE", "DPM-M-SDE-HEUN", "DPM-3M-SDE")
# diffusers rounds KDPM2's Karras timesteps, and so do we.
ROUNDED = ("KDPM2-D", "KDPM2-A")
runs = []


def add(run, result):
    if result is None or not np.isfinite(result["std"]):
        return
    runs.append({**run, **result})


for kind, (function, own_noise, kw) in FUNCTIONS.items():
    for spacing in SPACINGS + ("linspace",):
        if (kind in ROUNDED and spacing == "karras") or (spacing == "linspace" and kind not in NEW):
            continue
        # The others have their own goldens: here they show the spacings that diffusers lacks.
        counts = COUNTS if kind in NEW else ((2, None), (20, None), (20, 0.75))
        for n, strength in counts:
            if strength is not None and (kind == "K-LMS" or n != len(spaced(spacing, n)) - 1):
                continue  # k-diffusion's LMS begins anew at order 1
            run = {"kind": kind, "spacing": spacing, "steps": n, "strength": strength, "sampling": {}}
            add(run, by_k_diffusion(function, spacing, n, strength, own_noise, kw))
    options = [{"eta": 0.0}, {"eta": 0.4, "s_noise": 1.1}] if own_noise else [{"s_churn": 3.0}, {"s_churn": 40.0, "s_tmin": 0.05, "s_tmax": 8.0, "s_noise": 1.1}]
    for sampling in options if kind != "K-LMS" else []:
        for n in (2, 5, 20):
            run = {"kind": kind, "spacing": "exponential", "steps": n, "strength": None, "sampling": sampling}
            add(run, by_k_diffusion(function, "exponential", n, None, own_noise, {**kw, **sampling}))

CLASSES = {"DPM-M": D.DPMSolverMultistepScheduler, "DPM-S": D.DPMSolverSinglestepScheduler, "UNIPC": D.UniPCMultistepScheduler, "DEIS": D.DEISMultistepScheduler}
for kind, cls in CLASSES.items():
    for spacing in SPACINGS:
        if spacing == "kl_optimal":
            continue  # these classes end at 0
        for n, strength in COUNTS + ((7, None), (21, None), (21, 0.6)) if kind == "DEIS" else ((2, None), (7, None), (20, None), (21, 0.75)):
            if np.any(np.abs(time_of(spaced(spacing, n)[:-1]) % 1 - 0.5) < 1e-3):
                continue  # a half is rounded up or down by the last bit of the processor's square root
            own = {"karras": "use_karras_sigmas", "exponential": "use_exponential_sigmas", "beta": "use_beta_sigmas"}.get(spacing)
            if spacing == "polyexponential" or (spacing == "ddim_uniform" and n != len(spaced(spacing, n)) - 1):
                continue
            run = {"kind": kind, "spacing": spacing, "steps": n, "strength": strength, "sampling": {}}
            config = {own: True} if own else {"use_karras_sigmas": True}
            add(run, by_diffusers(cls, config, None if own else spacing, n, strength, {}))
for note, config in (("plain", {}), ("v", {"prediction_type": "v_prediction"}), ("sample", {"prediction_type": "sample"}), ("1", {"solver_order": 1}), ("3", {"solver_order": 3}),
                     ("3-not-lower", {"solver_order": 3, "lower_order_final": False}), ("leading", {"timestep_spacing": "leading"}), ("trailing", {"timestep_spacing": "trailing"}), ("defaults", None)):
    for n, strength in COUNTS:
        run = {"kind": "DEIS", "spacing": None, "steps": n, "strength": strength, "sampling": {}, "config": {**SD, **config} if config is not None else {}}
        base = config if config is not None else {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "steps_offset": 0}
        add(run, by_diffusers(D.DEISMultistepScheduler, base, None, n, strength, {}))
for note, config, sampling in (("plain", {}, {}), ("0", {}, {"eta": 0.0}), ("1", {}, {"eta": 1.0}), ("0.7", {}, {"eta": 0.7}), ("v", {"prediction_type": "v_prediction"}, {}),
                               ("sample", {"prediction_type": "sample"}, {}), ("100", {"original_inference_steps": 100}, {}), ("zero-snr", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}, {})):
    for n, strength in COUNTS:
        run = {"kind": "TCD", "spacing": None, "steps": n, "strength": strength, "sampling": sampling, "config": {**SD, **config}}
        add(run, by_diffusers(D.TCDScheduler, config, None, n, strength, dict(sampling)))
# What model files say, by the classes that know it.
FILES = {**CLASSES, "EULER-D": D.EulerDiscreteScheduler, "K-LMS": D.LMSDiscreteScheduler, "HEUN": D.HeunDiscreteScheduler,
         "KDPM2-D": D.KDPM2DiscreteScheduler, "KDPM2-A": D.KDPM2AncestralDiscreteScheduler}
for kind, cls in FILES.items():
    for key in ("use_exponential_sigmas", "use_beta_sigmas") + (("use_lu_lambdas",) if kind == "DPM-M" else ()):
        for spacing in ("leading", "linspace"):
            for n, strength in ((2, None), (20, None), (20, 0.75)):
                config = {key: True, "timestep_spacing": spacing}
                run = {"kind": kind, "spacing": None, "steps": n, "strength": strength, "sampling": {}, "config": {**SD, **config}}
                add(run, by_diffusers(cls, config, None, n, strength, {}))


def short(value):
    if isinstance(value, float):
        return float(str(np.float32(value)))
    if isinstance(value, list):
        return [short(v) for v in value]
    return value


out = {"diffusers": D.__version__, "torch": torch.__version__, "runs": [{k: short(v) for k, v in run.items() if v is not None} for run in runs]}
text = json.dumps(out, separators=(",", ":")).replace('{"kind"', '\n{"kind"')
pathlib.Path(__file__).with_name("samplers_golden.json").write_text(text + "\n")
print(len(runs), "runs", len(text), "bytes", sorted({r["kind"]: 0 for r in runs}))
