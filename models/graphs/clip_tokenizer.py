"""Writes sd-v1/tokenizer/: CLIP's vocabulary and merges in transformers' format, with Stable Diffusion v1's settings.

    pip download --no-deps open_clip_torch==3.3.0
    python clip_tokenizer.py open_clip_torch-3.3.0-py3-none-any.whl

The wheel contains OpenAI's own file of merges, which determines all ids.
"""
import gzip
import hashlib
import json
import sys
import zipfile

from transformers import CLIPTokenizer

from config import SD_V1

MERGES = 49152 - 256 - 2  # OpenAI's simple_tokenizer.py uses this many lines of the file
SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"  # of the file, in OpenAI's repository
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
KNOWN = {
    "": [],
    "a photo of a cat": [320, 1125, 539, 320, 2368],
    "a photo of an astronaut riding a horse on mars": [320, 1125, 539, 550, 18376, 6765, 320, 4558, 525, 7496],
}


def merges_of(wheel):
    """The merges in order. Each is a pair of symbols with a space between them."""
    packed = zipfile.ZipFile(wheel).read("open_clip/bpe_simple_vocab_16e6.txt.gz")
    assert hashlib.sha256(packed).hexdigest() == SHA256, "these are not OpenAI's merges"
    return gzip.decompress(packed).decode().split("\n")[1:MERGES + 1]


def vocabulary_of(merges):
    """Symbol -> id: the bytes, the bytes at the end of a word, the result of each merge, the two special tokens."""
    # A byte is written as the character with its number if that is visible. The others get characters from 256 on.
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [chr(byte) for byte in seen] + [chr(256 + i) for i in range(256 - len(seen))]
    symbols = letters + [letter + "</w>" for letter in letters] + [merge.replace(" ", "") for merge in merges] + [BOS, EOS]
    vocabulary = {symbol: i for i, symbol in enumerate(symbols)}
    assert len(vocabulary) == len(symbols) == 49408 and vocabulary[BOS] == 49406
    return vocabulary


def main():
    folder = SD_V1 / "tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    merges = merges_of(sys.argv[1])
    (folder / "vocab.json").write_text(json.dumps(vocabulary_of(merges), ensure_ascii=False, separators=(",", ":")))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")

    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    special = {
        "bos_token": {"content": BOS, **flags}, "eos_token": {"content": EOS, **flags}, "pad_token": EOS,
        "unk_token": {"content": EOS, **flags},
    }
    settings = {
        "add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 77, "tokenizer_class": "CLIPTokenizer",
        **{key: token if isinstance(token, str) else {"__type": "AddedToken", **token} for key, token in special.items()},
    }
    for name, content in (("special_tokens_map.json", special), ("tokenizer_config.json", settings)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")

    tokenizer = CLIPTokenizer.from_pretrained(folder)
    for text, ids in KNOWN.items():
        padded = tokenizer(text, padding="max_length", truncation=True).input_ids
        assert padded == [49406, *ids] + [49407] * (76 - len(ids)), text
    print(f"{len(merges)} merges; {', '.join(f'{p.name} {p.stat().st_size:,} bytes' for p in sorted(folder.iterdir()))}")


if __name__ == "__main__":
    main()
