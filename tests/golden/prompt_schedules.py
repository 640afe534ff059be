"""Writes prompt_schedules.json: what A1111 makes of prompts that change from step to step. It runs
modules/prompt_parser.py (1.10) from a checkout of AUTOMATIC1111/stable-diffusion-webui and copies nothing of it. Needs lark.

    python tests/golden/prompt_schedules.py stable-diffusion-webui/modules/prompt_parser.py
"""
import json, os, random, re, sys
from collections import namedtuple

import lark

source = open(sys.argv[1]).read()
space = {"re": re, "lark": lark, "namedtuple": namedtuple}  # what follows it needs torch
exec(source[source.index("schedule_parser = "):source.index("ScheduledPromptConditioning = ")], space)

LANDSCAPE = ("fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75][ in foreground::0.6]"
             "[: in background:0.25] [shoddy:masterful:0.5]")
WRITTEN = [(prompt, 10, None) for prompt in [
    "test", "a [b:3]", "a [b: 3]", "a [[[b]]:2]", "[(a:2):3]", "a [b : c : 1] d", "a[b:[c:d:2]:1]e", "a [unbalanced", "a [b:.5] c",
    "((a][:b:c [d:3]", "[a|(b:1.1)]", "[fe|]male", "[fe|||]male", "[a:b:0]", "[a:b:1]", "[a:b:10]", "[a:b:99]", "[a:b:1.0]", "[a:b:1.5]",
    "[a:b:0.29]", "[a:b:-1]", "[a:b:-0.5]", "[a:b:+3]", "[a:b:5e-1]", "[a:b:5.e-1]", "[a:b:1e9]", "[a:b:.]", "[a:b:x]", "[a:b:3 4]", "[a:b:\t4\n]",
    "[::3]", "[:3]", "[3]", "[a::3]", "[:a:3]", "[a:b:c:3]", "[a:b]", "[[a:b]:c:3]", "[(a:b):c:3]", "[(a:b:c):d:3]", "[a:(b:3]", "([a:b:3])",
    "[a|b] [c:d:4]", "[[a|b]:c:4]", "[a:[b|c]:4]", "[a|[b:c:4]]", "[[a|b]|c]", "[[a|b]]", "[a|b|c|d] [e|f|g]", "[a|b", "a|b]", "a|b", "(a|b)", "[(a|b)]",
    "{a|b}", "a [b|c] d|e", "a \\| b [c:d:5]", "\\[a:b:5\\]", "[a\\:b:c:5]", "[a\\]:b:5]", "a\\", "[a:b:5]\\", "[a|b:0.5]", "[a:1|b]", "[a|(b:0.5)]",
    "[a:b:2][c:d:2][e:f:7]", "[a [b:c:5] (d):e:7]", "1girl, [(solo:1.2), :0.3][bad]", "[日本:é:5]", "[\n a \n:b:5]",
]] + [(LANDSCAPE, 100, None), ("[a:b:0.33]", 100, None), ("[a:b:0.5]", 1, None), ("[a|b]", 1, None), ("[a|b|c]", 7, None)] + [
    (prompt, 10, 20) for prompt in ["a [b:.5] c", "a [b:1.5] c", "[a:b:25]", "[a:b:5]", "[a|b]", "[a:b:1.0]", "[a:b:2.5]"]]

random.seed(1)
PIECES = ["a", "b", "cat", " ", "x y", "\\(", "\\|", "{", "1", "\n", "(", ")", "[", "]", ":", "|", ":0.5]", ":2]", ":1.3)", "[a|", "[a:b:", ".5", "[b:",
          ":0.3", " 2 ]", "[c|d]", "[e:f:3]"]
RANDOM = []
while len(RANDOM) < 2000:
    prompt = "".join(random.choice(PIECES) for _ in range(random.randint(1, 11)))
    if all(prompt != other for other, _, _ in RANDOM):
        RANDOM.append((prompt, 5, None))

def cases(prompts):
    lines = []
    for prompt, steps, before in prompts:
        args = (steps, None) if before is None else (before, steps)
        stretches = space["get_learned_conditioning_prompt_schedules"]([prompt], *args)[0]
        lines.append(json.dumps({"prompt": prompt, "steps": steps, "before": before, "stretches": stretches}))
    return "[\n" + ",\n".join(lines) + "\n]"

here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(here, "prompt_schedules.json"), "w") as file:
    file.write('{"written": ' + cases(WRITTEN) + ',\n"random": ' + cases(RANDOM) + "}\n")
