"""Step 1: render the emoji, build the caption table and train the tokenizer.

Input : npm packages @iconify-json/noto (Noto Emoji artwork, Apache-2.0) and
        in ../npm, rendered by the resvg_py wheel (MPL-2.0 / Apache-2.0, used as a tool only),
        concepts.txt (our own choice of pictures and captions).
Output: $WORK/rgba.npy      (N, 192, 192, 4) uint8, straight alpha
        $WORK/items.json    per render: {slug, names, color}  color = None or the recolouring
        tiny-sd/tokenizer/  CLIP-format byte-level BPE
"""
import io, json, os
import numpy as np
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.dirname(HERE)  # the model folder that these scripts make
WORK = os.environ.get("WORK", os.path.join(HERE, "data"))
NPM = os.environ.get("NPM", os.path.join(HERE, "npm"))
RENDER = 192

# Named colours: background RGB, and (hue, saturation, lightness) for recolouring an object.
BACKGROUNDS = {
    "white": (255, 255, 255), "black": (16, 16, 20), "gray": (140, 144, 150), "red": (214, 48, 49),
    "orange": (245, 140, 40), "yellow": (250, 218, 70), "green": (58, 170, 83), "blue": (52, 110, 220),
    "purple": (132, 68, 190), "pink": (248, 160, 200), "brown": (125, 80, 50),
}
PAINTS = {
    "red": (2, .80, .47), "orange": (30, .92, .54), "yellow": (49, .95, .56), "green": (130, .55, .42),
    "blue": (218, .75, .50), "purple": (276, .52, .48), "pink": (330, .80, .74), "brown": (24, .45, .30),
    "black": (0, 0, .13), "white": (0, 0, .93), "gray": (215, .05, .55),
}
# Objects that get a colour of their choice ("a purple car"). Value: the noun used in the caption.
PAINTABLE = {
    "red-apple": "apple", "automobile": "car", "star": "star", "balloon": "balloon", "closed-book": "book",
    "t-shirt": "t shirt", "dress": "dress", "umbrella": "umbrella", "tulip": "tulip", "rose": "rose",
    "fish": "fish", "bird": "bird", "butterfly": "butterfly", "cat": "cat", "dog": "dog", "horse": "horse",
    "house": "house", "rocket": "rocket", "billed-cap": "cap", "key": "key", "bell": "bell", "crown": "crown",
    "gem-stone": "diamond", "crescent-moon": "moon", "deciduous-tree": "tree", "mushroom": "mushroom",
    "octopus": "octopus", "whale": "whale", "dragon": "dragon", "frog": "frog", "turtle": "turtle",
    "bear": "bear", "hibiscus": "flower",
    "bus": "bus", "pickup-truck": "truck", "boxing-glove": "boxing glove", "backpack": "backpack",
    "handbag": "handbag", "high-heeled-shoe": "high heel", "scarf": "scarf",
    "hot-pepper": "pepper", "wrapped-gift": "gift", "guitar": "guitar",
    "sailboat": "boat", "droplet": "drop", "necktie": "tie", "teddy-bear": "teddy bear", "pear": "pear",
    "dolphin": "dolphin", "duck": "duck", "pig": "pig", "snake": "snake", "t-rex": "dinosaur", "fire": "fire",
    "maple-leaf": "leaf", "chair": "chair", "bucket": "bucket", "crayon": "crayon", "gear": "gear",
}


def render_all(slugs):
    """SVG -> RGBA with resvg (the `resvg_py` wheel). A few icons crash some resvg releases, so one at a time."""
    import resvg_py
    icons = json.load(open(f"{NPM}/node_modules/@iconify-json/noto/icons.json"))
    out = []
    for slug in slugs:
        icon = icons["icons"].get(slug) or icons["icons"][icons["aliases"][slug]["parent"]]
        w, h = icon.get("width", icons.get("width", 16)), icon.get("height", icons.get("height", 16))
        svg = (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
               f'viewBox="0 0 {w} {h}" width="{w}" height="{h}">{icon["body"]}</svg>')
        try:
            png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=RENDER, height=RENDER))
            out.append(np.asarray(Image.open(io.BytesIO(png)).convert("RGBA").resize((RENDER, RENDER), Image.LANCZOS)))
        except BaseException as e:  # a Rust panic arrives as a BaseException
            print("skipped", slug, type(e).__name__)
            out.append(None)
    return out


def rgb_to_hsl(rgb):
    mx, mn = rgb.max(-1), rgb.min(-1)
    l, d = (mx + mn) / 2, mx - mn
    s = np.where(d > 1e-6, d / np.maximum(1 - np.abs(2 * l - 1), 1e-6), 0)
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    dd = np.maximum(d, 1e-6)
    h = np.where(mx == r, ((g - b) / dd) % 6, np.where(mx == g, (b - r) / dd + 2, (r - g) / dd + 4)) * 60
    return h, np.clip(s, 0, 1), l


def hsl_to_rgb(h, s, l):
    def f(n):
        k = (n + h / 30) % 12
        return l - s * np.minimum(l, 1 - l) * np.clip(np.minimum(k - 3, 9 - k), -1, 1)
    return np.stack([f(0), f(8), f(4)], -1)


def repaint(rgba, paint):
    """Give every coloured pixel the hue of `paint`, keep its shading; leave greys (eyes, windows, outlines) alone."""
    rgb = rgba[..., :3] / 255.0
    h, s, l = rgb_to_hsl(rgb)
    chroma = rgb.max(-1) - rgb.min(-1)
    th, ts, tl = PAINTS[paint]
    weight = np.clip((chroma - 0.10) / 0.15, 0, 1)                      # soft mask of "coloured" pixels
    mask = (weight > 0.5) & (rgba[..., 3] > 128)
    med = np.median(l[mask]) if mask.any() else 0.5
    nl = np.clip(tl + (l - med) * (0.5 if paint in ("black", "white") else 0.8), 0.03, 0.98)
    new = hsl_to_rgb(np.full_like(h, th), np.full_like(s, ts), nl)
    out = rgb * (1 - weight[..., None]) + new * weight[..., None]
    return np.concatenate([np.clip(out * 255 + .5, 0, 255).astype(np.uint8), rgba[..., 3:]], -1)


def article(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def train_tokenizer(texts, folder):
    """CLIP-style byte-level BPE: lower case, '</w>' word ends, 256 byte symbols (with and without '</w>') always there."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, decoders, trainers, Regex
    tok = Tokenizer(models.BPE(unk_token="<|endoftext|>", continuing_subword_prefix="", end_of_word_suffix="</w>"))
    tok.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), behavior="removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    trainer = trainers.BpeTrainer(vocab_size=2048, min_frequency=1, end_of_word_suffix="</w>",
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    tok.train_from_iterator(texts, trainer)
    merges = [tuple(m) for m in json.loads(tok.to_str())["model"]["merges"]]
    # Rebuild the ids in CLIP's own order: 256 bytes, 256 bytes+</w>, one per merge, then the two specials.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = alphabet + [c + "</w>" for c in alphabet]
    known = set(vocab)
    for a, b in merges:
        assert a in known and b in known
        if a + b not in known:
            known.add(a + b); vocab.append(a + b)
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    os.makedirs(folder, exist_ok=True)
    json.dump({t: i for i, t in enumerate(vocab)}, open(f"{folder}/vocab.json", "w", encoding="utf-8"), ensure_ascii=False)
    with open(f"{folder}/merges.txt", "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    json.dump(special, open(f"{folder}/special_tokens_map.json", "w"), indent=2)
    json.dump({**special, "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True,
               "add_prefix_space": False, "errors": "replace"}, open(f"{folder}/tokenizer_config.json", "w"), indent=2)
    return len(vocab), len(merges)


def main():
    os.makedirs(WORK, exist_ok=True)
    concepts = []
    for line in open(f"{HERE}/concepts.txt"):
        line = line.strip()
        if line and not line.startswith("#"):
            slug, _, names = line.partition(" = ")
            concepts.append((slug, [n.strip() for n in names.split(",")] if names else [slug.replace("-", " ")]))
    renders = render_all([c[0] for c in concepts])
    rgba, items = [], []
    concepts, renders = zip(*[(c, r) for c, r in zip(concepts, renders) if r is not None])
    for (slug, names), img in zip(concepts, renders):
        rgba.append(img)
        items.append({"slug": slug, "names": names, "color": None})
    for (slug, names), img in zip(concepts, renders):
        if slug in PAINTABLE:
            for paint in PAINTS:
                rgba.append(repaint(img, paint))
                items.append({"slug": slug, "names": [f"{paint} {PAINTABLE[slug]}"], "color": paint})
    np.save(f"{WORK}/rgba.npy", np.stack(rgba))
    json.dump(items, open(f"{WORK}/items.json", "w"), indent=0)
    from captions import caption_corpus
    size = train_tokenizer(caption_corpus(items), f"{MODEL}/tokenizer")
    print(len(concepts), "concepts,", len(items), "renders, vocab/merges", size)


if __name__ == "__main__":
    main()
