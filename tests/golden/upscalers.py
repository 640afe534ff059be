"""Writes upscalers/: small upscaler models with random weights in each form that people have, and what torch makes of a
picture with them.

    pip install torch safetensors numpy
    python tests/golden/upscalers.py

The modules are RRDBNet (as in BasicSR's basicsr/archs/rrdbnet_arch.py) and SRVGGNetCompact (srvgg_arch.py), written here
from their descriptions. expected.json names each file, its scale, and the pixels that it makes of picture(): the tensor's values
at every STEP-th place.
"""
import json, os, torch
from torch import nn
from torch.nn.functional import interpolate, leaky_relu, pixel_shuffle, pixel_unshuffle
from safetensors.torch import save_file

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "upscalers")
STEP = 7


class Dense(nn.Module):
    def __init__(self, features, growth):
        super().__init__()
        for place in range(5):
            setattr(self, f"conv{place + 1}", nn.Conv2d(features + place * growth, growth if place < 4 else features, 3, 1, 1))

    def forward(self, x):
        seen = [x]
        for place in range(1, 5):
            seen.append(leaky_relu(getattr(self, f"conv{place}")(torch.cat(seen, 1)), 0.2))
        return self.conv5(torch.cat(seen, 1)) * 0.2 + x


class Block(nn.Module):
    def __init__(self, features, growth):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (Dense(features, growth) for _ in range(3))

    def forward(self, x):
        return self.rdb3(self.rdb2(self.rdb1(x))) * 0.2 + x


class RRDBNet(nn.Module):
    def __init__(self, scale, features=8, growth=4, blocks=2):
        super().__init__()
        self.unshuffle = {4: 1, 2: 2, 1: 4}[scale]
        conv = lambda inputs, outputs: nn.Conv2d(inputs, outputs, 3, 1, 1)
        self.conv_first = conv(3 * self.unshuffle ** 2, features)
        self.body = nn.Sequential(*(Block(features, growth) for _ in range(blocks)))
        self.conv_body, self.conv_up1, self.conv_up2, self.conv_hr = (conv(features, features) for _ in range(4))
        self.conv_last = conv(features, 3)

    def forward(self, x):
        first = self.conv_first(pixel_unshuffle(x, self.unshuffle) if self.unshuffle > 1 else x)
        feature = first + self.conv_body(self.body(first))
        for up in (self.conv_up1, self.conv_up2):
            feature = leaky_relu(up(interpolate(feature, scale_factor=2, mode="nearest")), 0.2)
        return self.conv_last(leaky_relu(self.conv_hr(feature), 0.2))


class Compact(nn.Module):
    def __init__(self, scale, features=8, convolutions=3):
        super().__init__()
        self.scale = scale
        layers = [nn.Conv2d(3, features, 3, 1, 1), nn.PReLU(features)]
        for _ in range(convolutions):
            layers += [nn.Conv2d(features, features, 3, 1, 1), nn.PReLU(features)]
        self.body = nn.ModuleList(layers + [nn.Conv2d(features, 3 * scale * scale, 3, 1, 1)])

    def forward(self, x):
        out = x
        for layer in self.body:
            out = layer(out)
        return pixel_shuffle(out, self.scale) + interpolate(x, scale_factor=self.scale, mode="nearest")


def old(weights, blocks=2):
    """The names of the first ESRGAN files."""
    parts = {"conv_first": "model.0", "conv_body": f"model.1.sub.{blocks}", "conv_up1": "model.3", "conv_up2": "model.6",
             "conv_hr": "model.8", "conv_last": "model.10"}
    named = {}
    for name, value in weights.items():
        module, kind = name.rsplit(".", 1)
        if module in parts:
            named[f"{parts[module]}.{kind}"] = value
        else:
            _, block, dense, conv = module.split(".")
            named[f"model.1.sub.{block}.{dense.upper()}.{conv}.0.{kind}"] = value
    return named


def trunk(weights):
    """The names of ESRGAN's own repository after that."""
    parts = {"conv_body": "trunk_conv", "conv_up1": "upconv1", "conv_up2": "upconv2", "conv_hr": "HRconv"}
    named = {}
    for name, value in weights.items():
        module, kind = name.rsplit(".", 1)
        if module.startswith("body."):
            _, block, dense, conv = module.split(".")
            module = f"RRDB_trunk.{block}.{dense.upper()}.{conv}"
        named[f"{parts.get(module, module)}.{kind}"] = value
    return named


def picture(height=8, width=12):
    """Easy to compute again, and no two pixels alike."""
    x = torch.arange(3 * height * width).reshape(1, 3, height, width) * 37 % 256
    return x.float() / 255


def main():
    os.makedirs(OUT, exist_ok=True)
    torch.manual_seed(0)
    expected = []

    def put(file, model, weights, write):
        with torch.no_grad():
            made = model(picture())
        write(weights, os.path.join(OUT, file))
        expected.append(dict(file=file, scale=model.scale if isinstance(model, Compact) else 4 // model.unshuffle,
                             values=[round(value, 6) for value in made.flatten()[::STEP].tolist()]))

    def made(model):
        # As large as trained weights are: torch's own beginning leaves the blocks without an effect.
        with torch.no_grad():
            for value in model.parameters():
                value.mul_(1.5)
        return model.half().float().eval()

    half = lambda weights: {name: value.half().contiguous() for name, value in weights.items()}
    x4, x2, x1 = (made(RRDBNet(scale)) for scale in (4, 2, 1))
    compact = made(Compact(3))
    put("x4.safetensors", x4, half(x4.state_dict()), save_file)
    put("x4-ema.pth", x4, {"params": {"wrong": torch.zeros(1)}, "params_ema": half(x4.state_dict())}, torch.save)
    put("x4-old.pth", x4, half(old(x4.state_dict())), torch.save)
    put("x4-trunk.pth", x4, half(trunk(x4.state_dict())), torch.save)
    put("x2.safetensors", x2, half(x2.state_dict()), save_file)
    put("x1.safetensors", x1, half(x1.state_dict()), save_file)
    put("compact.pth", compact, {"params": half(compact.state_dict())}, torch.save)
    json.dump(expected, open(os.path.join(OUT, "expected.json"), "w"))


if __name__ == "__main__":
    main()
