"""Writes brownian_golden.json: increments of torchsde's BrownianTree as k-diffusion's BrownianTreeNoiseSampler draws them.

    python brownian_golden.py       needs torch, torchsde and k-diffusion's sampling.py (K_DIFFUSION names its folder)

Everything is written as the bits of f32. Each query is a (time, next time) of a schedule, in its order, and some beside it. The increments are those of the
tree: what k-diffusion divides them by is a square root of torch, whose last bit depends on the processor.
"""
import importlib.util, json, os, pathlib, sys, types, warnings
import numpy as np, torch

warnings.filterwarnings("ignore")


def k_sampling():
    """k-diffusion's sampling.py alone: the package's own __init__ needs more than it."""
    folder = pathlib.Path(os.environ.get("K_DIFFUSION") or next(pathlib.Path(p, "k_diffusion") for p in sys.path if pathlib.Path(p, "k_diffusion/sampling.py").exists()))
    package = types.ModuleType("k_diffusion"); package.__path__ = [str(folder)]; sys.modules["k_diffusion"] = package
    for name in ("torchdiffeq",):
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = types.SimpleNamespace(odeint=None)
    utils = types.ModuleType("k_diffusion.utils"); utils.append_dims = lambda x, n: x[(...,) + (None,) * (n - x.ndim)]
    sys.modules["k_diffusion.utils"] = package.utils = utils
    spec = importlib.util.spec_from_file_location("k_diffusion.sampling", folder / "sampling.py")
    module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)
    return module


def bits(values):
    return [int(v) for v in np.asarray(values, dtype=np.float32).view(np.uint32).flatten()]


if __name__ == "__main__":
    K = k_sampling()
    karras = K.get_sigmas_karras(7, 0.0292, 14.6146)
    runs = []
    for seed, sigmas in ((42, karras), (0, karras), (2**32 + 5, K.get_sigmas_exponential(5, 0.03, 14.6)), (2**63 + 9, K.get_sigmas_exponential(20, 0.0291675, 14.6146)),
                         (7, torch.tensor([4096.0, 800.5, 3.25, 0.0415, 0.0]))):
        x = torch.zeros(1, 4, 2, 3)
        low, high = sigmas[sigmas > 0].min(), sigmas.max()
        # A list of seeds, as A1111 gives one for each picture of a batch.
        noise = K.BrownianTreeNoiseSampler(x, low, high, seed=[seed])
        pairs = [(a, b) for a, b in zip(sigmas[:-2], sigmas[1:-1])]
        pairs += [(high, low), (pairs[0][0], pairs[-1][1] * 1.5), pairs[1]]
        runs.append({"seed": seed, "ends": bits([low, high]),
                     "queries": [{"times": bits([a, b]), "bits": bits(noise.tree.trees[0](min(a, b), max(a, b)).numpy())} for a, b in pairs]})
    import torchsde
    out = {"torch": torch.__version__, "torchsde": torchsde.__version__, "numpy": np.__version__, "runs": runs}
    text = json.dumps(out, separators=(",", ":")).replace('{"seed"', '\n{"seed"').replace('{"times"', '\n {"times"')
    pathlib.Path(__file__).with_name("brownian_golden.json").write_text(text + "\n")
    print(len(runs), "runs", len(text), "bytes")
