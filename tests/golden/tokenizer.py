"""Writes tokenizer_*.json: tokens by transformers' CLIPTokenizer for difficult strings.

    pip install 'transformers==5.23.*'      # no torch needed
    python tests/golden/tokenizer.py

A case holds `text` (repeated `repeat` times), the `ids` without the padding after them, and `count`, the number of
tokens without truncation. tokenizer_tiny_sd.json uses the default model's own files; tokenizer_configs.json uses
the same vocabulary with other published configurations.
"""
import json, os, shutil, tempfile, unicodedata
from transformers import CLIPTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.join(HERE, "..", "..", "models", "tiny-sd", "tokenizer")

PLAIN = [
    "", "a red heart on a blue background", "A RED  HEART!!!", "a photo of an astronaut riding a horse on mars",
    "masterpiece, best quality, 1girl, (looking at viewer:1.2), [blurry]", "8k, f/1.8, 50mm, ISO-100, 3.14159, 1e-5",
    "dog's cat's we've they'll I'm he'd it's don't you're", "DOG'S WE'VE THEY'LL I'M HE'D IT'S DON'T",
    "dog’s we’ve don’t", "'s't're've'm'll'd", "'''s", "'S 'T 'RE", "s' t' re'", "o'clock rock'n'roll",
    "...", "?!?!?!", "a.b.c", "a-b-c", "a_b_c", "a/b\\c", "a,b;c:d", "(((a)))", "[[[a]]]", "{a|b}", "<a>", "a<b>c",
    "@user #tag $5 100% a&b *a* a+b=c ~a ^a `a`", "http://example.com/?q=a%20b&c=d#e", "me@example.com",
    "C:\\Users\\me\\cat.png", "&amp; &lt;b&gt; &#39; &quot; &eacute; &nbsp;", "&amp;amp;", "<b>bold</b>", "<lora:x:0.8>",
    "BREAK", "a AND b", "1234567890", "12345 67890", "a1b2c3", "3d render", "4k8k16k", "1,000,000", "0x1F600", "½ ¼ ¾", "²³¹",
    "Ⅷ ⅷ", "①②③", "１２３", "٠١٢٣", "०१२", "１girl", "ONE two Three", "camelCaseWord", "x" * 50, "abcdefghijklmnopqrstuvwxyz",
    "qwrtpsdfghjklzxcvbnm", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", "supercalifragilisticexpialidocious",
    "Donaudampfschifffahrtsgesellschaftskapitän", "pneumonoultramicroscopicsilicovolcanoconiosis",
]
SPACE = [
    " ", "  ", "   a", "a   ", "  a  b  ", "\t", "\n", "\r\n", "a\tb", "a\nb", "a\r\nb", "a\r b", "\n\n\na\n\n\n", "a\x0bb", "a\x0cb",
    "a\u00a0b", "a\u1680b", "a\u2000b", "a\u2003b", "a\u2009b", "a\u200ab", "a\u2028b", "a\u2029b", "a\u202fb", "a\u205fb", "a\u3000b",
    "a\x85b", "a\u180eb", "\u00a0", "\u3000\u3000", "a \u00a0 b", "\ufeffa red heart", "a\ufeffb",
]
CONTROL = [
    "\x00", "a\x00b", "\x00\x00\x00", "a \x00 b", "\x01\x02\x03", "a\x07b", "a\x08b", "a\x1bb", "\x1b[31mred\x1b[0m", "a\x1cb", "a\x1db",
    "a\x1eb", "a\x1fb", "a\x7fb", "a\x80b", "a\x9fb", "a\u00adb", "a\u200bb", "a\u200cb", "a\u200db", "\u200d", "\u200b\u200b", "a\u2060b",
    "\u202ea red heart\u202c", "a\u2066b\u2069", "a\u200eb\u200fc", "\ufffd", "a\ufffdb", "\ufffd\ufffd\ufffd", "\ufffe", "\uffff",
    "\ufff9a\ufffab\ufffb", "\U000e0001\U000e0041", "a\ufe0fb", "\ue000", "\U000f0000", "\U0010ffff", "\ufdd0",
]
ACCENT = [
    "café", "cafe\u0301", "CAFÉ", "CAFE\u0301", "naïve", "Zürich", "Zu\u0308rich", "ÅNGSTRÖM", "A\u030angstro\u0308m", "\u212bngstr\u00f6m",
    "\u2126 \u03a9", "\u1e69", "s\u0323\u0307", "s\u0307\u0323", "ạ̈ q\u0307\u0323", "ếệễ", "e\u0302\u0301", "\u0301", "a \u0301 b", "\u0301\u0302\u0303",
    "z̸̢̛̮͇a̷̧̼͌l̶̰̈́g̵̱̀o̸͚̓", "İstanbul", "istanbul ISTANBUL ıI", "I\u0307", "i\u0307", "DİYARBAKIR", "straße STRASSE STRAẞE", "ß", "ẞ",
    "ﬁ ﬂ ﬀ ﬃ ﬅ", "ǆ ǅ Ǆ", "ŉ", "ǰ", "Œuvre œuvre Æ æ", "ΑΒΓ ΣΊΣΥΦΟΣ", "ς σ Σ ΟΔΟΣ ΟΔΟΣ. Σ", "ἈΡΧΉ ᾼ ᾳ", "МОСКВА Ёлка", "Ђ Ї Ґ",
    "ქართული ᲥᲐᲠᲗᲣᲚᲘ", "Հայերեն", "Ꭰꭰ", "𐐀𐐨", "Ａｂｃ", "𝕬𝖇𝖈 𝒜 𝟘𝟙", "ªº", "ʰʲ", "ƏƏə", "Łódź", "Þórr ÐÆ", "Čeština ŘŽ", "Việt Nam",
    "\u1100\u1161\u11a8", "각", "\u0958", "\u0915\u093c", "\u2adc", "\ufb1d", "\uf900", "\u0344", "\u1fef", "\u2000", "\u037e", "\u0387",
]
SCRIPT = [
    "日本語", "赤いハート", "ﾊｰﾄ", "が か\u3099", "中文 漢字", "红色的心", "한국어 하트", "ไทย หัวใจ", "हिन्दी दिल", "தமிழ்", "বাংলা", "ລາວ", "မြန်မာ",
    "አማርኛ", "עברית לב", "שָׁלוֹם", "العربية قلب", "قَلْب", "فارسی می‌خواهم", "ﷺ", "اُردُو", "abc עברית def", "日本a語", "日本 語1", "日本、語。", "「心」",
    "𠮷野家", "𓀀𓁐", "𒀀", "🈚️", "㍿ ㎏ ㊙", "한\u0301", "ꙮ", "༄༅", "᚛ᚑᚌᚐᚋ᚜", "ⵣ", "ߒߞߏ", "𞤀𞤢",
]
EMOJI = [
    "😀", "😀😀😀", "a😀b", "❤", "❤️", "❤︎", "👨‍👩‍👧‍👦", "👩🏽‍🚀", "👍🏿", "🏳️‍🌈", "🏴‍☠️", "🇩🇪", "🇩🇪🇫🇷", "1️⃣", "#️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "a 😀 red ❤️ heart",
    "™ © ®", "☃ ☃️", "→ ⇒ ↔", "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋", "€ £ ¥ ₿", "“quoted” ‘single’ «guillemets» „low“", "a—b–c‒d", "a…b", "•·◦", "¿Qué? ¡Sí!", "¬¦¨¯´¸",
    "𝄞 ♫ ♯", "🫠🫨🪿", "😀\u200d", "\u200d😀", "😀'S", "😀s'", "♥♡❥",
]
SPECIAL = [
    "<|endoftext|>", "<|startoftext|>", "a <|endoftext|> b", "a<|endoftext|>b", "<|endoftext|><|endoftext|>", "<|ENDOFTEXT|>", "<|EndOfText|>",
    "<|startoftext|>a red heart<|endoftext|>", "<|endoftext|", "<|endoftext", "|endoftext|>", "<endoftext>", "< |endoftext|>", "<|end of text|>",
    "<|endoftext|>>", "<<|endoftext|>", "<|pad|>", "<|im_start|>", "<s>", "</s>", "[PAD]", "[CLS]", "</w>", "a</w>", "a </w> b", "red</w>", "Ġa", "Ā",
    "! !!", "!a", "a!", "#version", "#version: 0.2", "\u00e2\u0080\u0099", "  <|endoftext|>  ", "\n<|endoftext|>\n", "<|endoftext|>'s", "<|endoftext|>😀",
    "<|endoftext|>\u0301", "<|startoftext|>" * 80, "<|endoftext|>" * 80, "a" + "<|endoftext|> red " * 40,
]
# limits: 77 tokens with bos and eos, so 75 for the text
BOUNDARY = [" ".join(["red"] * n) for n in (73, 74, 75, 76, 77, 78, 100)] + ["!" + " red" * n for n in (73, 74, 75, 76)]
BOUNDARY += ["1" * n for n in (74, 75, 76, 77, 78)] + ["😀" * n for n in (18, 19, 20, 37, 38)] + [("red " * n) + "<|endoftext|>" for n in (73, 74, 75, 76)]
BOUNDARY += [("red " * n) + "straße" for n in (70, 71, 72, 73, 74, 75)] + ["x" * n for n in (74, 75, 76, 77, 78, 150, 151)]
REPEATED = [
    ("a", 65536), ("ab", 32768), ("red", 20000), ("red ", 16384), ("x ", 32768), ("é", 32768), ("e\u0301", 20000), ("日", 21845), ("😀", 16384), (" ", 65536),
    ("!", 65536), ("1", 65536), ("<|endoftext|>", 5000), ("<|endoftext|", 5000), ("\u0301", 32768), ("\x00", 65536), ("a😀1'", 8000), ("'s", 32768), ("<|", 32768),
]
TEXTS = [(t, 1) for t in PLAIN + SPACE + CONTROL + ACCENT + SCRIPT + EMOJI + SPECIAL + BOUNDARY] + REPEATED


def case(tokenizer, text, repeat):
    whole = text * repeat
    ids = tokenizer(whole, padding="max_length", truncation=True).input_ids
    assert len(ids) == tokenizer.model_max_length
    end = len(ids)
    while end and ids[end - 1] == tokenizer.pad_token_id:
        end -= 1
    said = {"text": text} if repeat == 1 else {"text": text, "repeat": repeat}
    return said | {"ids": ids[:end], "count": len(tokenizer(whole).input_ids)}


def write(name, value):
    lines = ",\n".join(json.dumps(v) for v in value["cases"]) if isinstance(value, dict) else None
    with open(os.path.join(HERE, name), "w") as f:
        if lines is None:
            f.write("[\n" + ",\n".join(json.dumps(v) for v in value) + "\n]\n")
        else:
            head = {k: v for k, v in value.items() if k != "cases"}
            f.write(json.dumps(head)[:-1] + ', "cases": [\n' + lines + "\n]}\n")


def about(tokenizer):
    return {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id, "max_length": tokenizer.model_max_length}


assert len(set(TEXTS)) == len(TEXTS), [t for t in TEXTS if TEXTS.count(t) > 1]
tiny = CLIPTokenizer.from_pretrained(FOLDER)
write("tokenizer_tiny_sd.json", about(tiny) | {"cases": [case(tiny, *t) for t in TEXTS]})

added = lambda content, **kw: {"__type": "AddedToken", "content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False} | kw
plain = lambda content, **kw: {k: v for k, v in added(content, **kw).items() if k != "__type"}
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
sd1 = {"bos_token": added(BOS), "eos_token": added(EOS), "unk_token": added(EOS), "pad_token": EOS, "model_max_length": 77, "do_lower_case": True}
sd1_map = {"bos_token": plain(BOS), "eos_token": plain(EOS), "unk_token": plain(EOS), "pad_token": EOS}
CONFIGS = {
    "stable-diffusion-v1-5": (sd1, sd1_map),
    "stable-diffusion-2, padded with !": (sd1, sd1_map | {"pad_token": "!"}),
    "every special token normalized": (sd1 | {"pad_token": added(EOS)}, None),
    "saved by a newer transformers": (
        {"added_tokens_decoder": {"0": plain("!", normalized=False, special=True), "1320": plain("<a-new-token>", normalized=False, special=False)},
         "bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": "!", "model_max_length": 77}, sd1_map),
    "a token with greedy sides": (sd1 | {"pad_token": added("!", lstrip=True, rstrip=True, normalized=False)}, None),
    "a longer window": (sd1 | {"model_max_length": 100}, None),
    "only the map": (None, sd1_map),
    "tokens added by an older program": (sd1, sd1_map, {"<a-new-token>": 1808, "<another>": 1807}),
    "tokens that belong to no role": (sd1, sd1_map | {"additional_special_tokens": ["<a-new-token>", "<another>"]}),
    "both": (sd1, sd1_map | {"additional_special_tokens": ["<another>"]}, {"<a-new-token>": 1807, "<another>": 1808}),
}
SOME = ["", "a red heart", "red!", "red ! heart!!", "a <|endoftext|> b", "a <|ENDOFTEXT|> b<|StartOfText|>", "<a-new-token> a<A-NEW-TOKEN>b", "a <another>fox <ANOTHER>",
        "a   <|endoftext|>   b", "😀 !", "straße ß", "red " * 74, "red " * 75, "red " * 98, "red " * 99]
out = []
for name, (config, special, *others) in CONFIGS.items():
    older = others[0] if others else None
    with tempfile.TemporaryDirectory() as folder:
        for f in ("vocab.json", "merges.txt"):
            shutil.copy(os.path.join(FOLDER, f), folder)
        for f, value in (("tokenizer_config.json", config), ("special_tokens_map.json", special), ("added_tokens.json", older)):
            if value is not None:
                json.dump(value, open(os.path.join(folder, f), "w"))
        extra = {} if config else {"model_max_length": 77}
        tokenizer = CLIPTokenizer.from_pretrained(folder, **extra)
        out.append({"name": name, "config": config, "special_tokens_map": special, "added_tokens": older} | about(tokenizer) | {"cases": [case(tokenizer, t, 1) for t in SOME]})
write("tokenizer_configs.json", out)
print(len(TEXTS), "strings;", {o["name"]: [o["bos"], o["eos"], o["pad"], o["max_length"]] for o in out})
