"""Writes torch/: small files as torch.save and trainers write them, and the values that torch.load reads from each.

    pip install torch numpy
    python tests/golden/torch_files.py
"""
import collections, json, os, sys, types
import numpy, torch

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "torch")
generator = torch.Generator().manual_seed(7)
random = lambda *shape: torch.randn(*shape, generator=generator)
expected = {}


def numbers(tensor):
    """As text where JSON has no number."""
    values = tensor.detach().float().contiguous().flatten().tolist()
    return [value if abs(value) < float("inf") else str(value) for value in values]


def save(file, value, tensors, not_read=(), **how):
    """`tensors` are what the file should give, by the names that it should give."""
    torch.save(value, os.path.join(OUT, file), **how)
    expected[file] = {
        "tensors": {name: {"shape": list(tensor.shape), "values": numbers(tensor)} for name, tensor in tensors.items()},
        "not_read": list(not_read),
    }


def both(name, value, tensors, *not_read):
    """In the form of today and in the one before torch 1.6."""
    save(f"{name}.pt", value, tensors, not_read)
    save(f"{name}.old.pt", value, tensors, not_read, _use_new_zipfile_serialization=False)


def thing(module, name, **state):
    """An object of a class that only its maker's Python has."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        path = ".".join(parts[:end])
        sys.modules.setdefault(path, types.ModuleType(path))
    kind = type(name, (), {"__module__": module})
    setattr(sys.modules[module], name, kind)
    made = kind()
    made.__dict__.update(state)
    return made


def main():
    os.makedirs(OUT, exist_ok=True)
    types_ = {
        "double": random(2, 3).double(), "float": random(2, 3), "half": random(2, 3).half(), "bfloat": random(2, 3).bfloat16(),
        "count": torch.tensor(-3), "flag": torch.tensor(True), "byte": torch.tensor([200], dtype=torch.uint8),
        "small": torch.tensor(-7, dtype=torch.int16), "none": torch.zeros(0, 4), "one": torch.tensor(1.5),
    }
    both("types", types_, types_)
    eights = {
        "e4m3": torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn),
        "e5m2": torch.arange(256, dtype=torch.uint8).view(torch.float8_e5m2),
    }
    # Which are not equal to themselves, so the test only counts them.
    both("eights", eights, {name: tensor.float().nan_to_num(12345.0, float("inf"), -float("inf")) for name, tensor in eights.items()})

    base, picture = random(4, 6), random(2, 3, 2, 2).to(memory_format=torch.channels_last)
    views = {
        "turned": base.t(), "rows": base[1:3], "columns": base[:, ::2], "inner": base[1:4, 2:5].t(), "same": base,
        "last": picture, "flat": base.view(24)[5:17], "spread": torch.arange(5.0).expand(1, 5),
    }
    both("views", views, views)

    layer = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    with torch.no_grad():
        layer[0].weight.copy_(random(2, 3))
    both("module", layer.state_dict(), layer.state_dict())
    both("parameters", dict(layer.named_parameters()), dict(layer.named_parameters()))
    marked = torch.nn.Parameter(random(2, 2))
    marked.note = "with an attribute"
    both("marked", {"marked": marked}, {"marked": marked})
    for protocol in (3, 4, 5):
        save(f"protocol{protocol}.pt", layer.state_dict(), layer.state_dict(), pickle_protocol=protocol)
        save(
            f"protocol{protocol}.old.pt", layer.state_dict(), layer.state_dict(), pickle_protocol=protocol,
            _use_new_zipfile_serialization=False,
        )

    weights = collections.OrderedDict(a=random(2, 2), b=random(3))
    callback = type(thing("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"))
    parsing = thing("pytorch_lightning.utilities.parsing", "AttributeDict", rate=1.0)
    both(
        "lightning",
        {
            "epoch": 3, "global_step": numpy.int64(7), "pytorch-lightning_version": "1.4.2", "state_dict": weights,
            "callbacks": {callback: {"best_model_score": numpy.float32(0.5), "path": "x", "odd": 1 << 80}},
            "optimizer_states": [{"state": {0: {"exp_avg": random(2, 2)}}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999)}]}],
            "hyper_parameters": parsing, "lr_schedulers": [], "sets": {1, 2},
        },
        weights, "epoch", "global_step", "pytorch-lightning_version", "callbacks", "optimizer_states", "hyper_parameters",
        "lr_schedulers", "sets",
    )
    both("wrapped", {f"module.{name}": tensor for name, tensor in weights.items()}, weights)
    both("nested", {"unet": weights, "text_encoder": {"c": weights["a"]}, "step": 5, "note": None},
         {"unet.a": weights["a"], "unet.b": weights["b"], "text_encoder.c": weights["a"]}, "step", "note")

    vectors = random(2, 8)
    both(
        "webui", {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "zorblax", "step": 10,
                  "sd_checkpoint": None, "sd_checkpoint_name": None}, {"zorblax": vectors},
    )
    both("diffusers", {"<fox>": vectors}, {"<fox>": vectors})
    both(
        "first", {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": torch.nn.ParameterDict({"*": vectors})},
        {"emb_params": vectors},
    )
    both("legacy_name", {"emb_params": vectors}, {"emb_params": vectors})

    pairs = [random(4, 2), random(2, 3), random(5, 1), random(1, 5)]
    names = ["0:up", "0:down", "1:up", "1:down"]
    both("pairs", pairs, {f"unet:{name}": tensor for name, tensor in zip(names, pairs)})
    both("pairs.text_encoder", pairs, {f"text_encoder:{name}": tensor for name, tensor in zip(names, pairs)})
    both("list", [vectors, random(3), random(3)], {})
    for file in ("list.pt", "list.old.pt"):
        rows = torch.load(os.path.join(OUT, file))
        expected[file]["tensors"] = {
            str(index): {"shape": list(row.shape), "values": numbers(row)} for index, row in enumerate(rows)
        }
    with open(os.path.join(OUT, "expected.json"), "w") as file:
        json.dump(expected, file)
        file.write("\n")


main()
