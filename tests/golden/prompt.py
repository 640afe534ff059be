"""Writes prompt.json: how A1111 splits prompts. It runs modules/prompt_parser.py from a checkout of
AUTOMATIC1111/stable-diffusion-webui and copies nothing of it.

    python tests/golden/prompt.py stable-diffusion-webui/modules/prompt_parser.py
"""
import json, os, random, re, sys

source = open(sys.argv[1]).read()
space = {"re": re}  # the module imports torch and lark; the parser needs neither
exec(source[source.index("re_attention = "):source.index('if __name__ == "__main__"')], space)

PROMPTS = [
    "", "normal text", "an (important) word", "(unbalanced", "\\(literal\\]", "(unnecessary)(parens)",
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).", "(a:1.3)", "(a: 1.3 )", "(a:+1.3)", "(a:.5)", "(a:1.)", "(a :1.3)", "(a:1.3) b (c)",
    "a:1.3", "a:1.3)", "a: b", "a:", ":", "(:1.3)", "(a:b)", "(a:b:1.3)", "(a:1.3:1.4)", "(a:1.3", "[a:1.3]", "[a:1.3)", "[[a]]", "[a", "a]", "a)", "((a)",
    "(a))", ")(", "][", "()", "[]", "(())", "(a[b)c]d", "[a(b]c)d", "((a)b)c", "(a(b(c(d))))", "[a[b[c[d]]]]", "(a:0.5)(b:0.5)", "(a:0.5) (b:0.5)", "((a:2):2)",
    "\\", "\\\\", "\\a", "a\\b", "\\\\(a)", "\\\\\\(a\\\\\\)", "(a\\)", "(a\\):1.3)", "\\[a\\]", "\\:", "(a\\:1.3)", "\\(a:1.3\\)", "a \\(b\\) (c:1.2)",
    "a BREAK b", "BREAK", "BREAK BREAK", " BREAK ", "aBREAK", "BREAKa", "a,BREAK,b", "a\nBREAK\nb", "a BREAK", "BREAK b", "BREAK_", "_BREAK", "éBREAK", "break", "Break",
    "(a) BREAK (b)", "(a BREAK b)", "(BREAK)", "BREAK:BREAK", "a BREAK BREAK b", "a BREAKBREAK b", "日本 (語:1.2) 😀[é]", "(\n a \n:1.2)", "a  (  b  )  c", "(a:\u30001.2\u00a0)",
    "1girl, (solo:1.2), [bad], ((best quality)), \\(artist\\)", "(a, b, (c:1.4), d:0.8), e", "<lora:x:0.8>", "(<lora:x:0.8>)", "{a}", "(a|b)", "[a|b]", "[a:b:0.5]",
    "(a:-1)", "(a:-0.5)", "(a:-.5) b", "((a:-2):3) b", "((a:-2):-3)", "[(a:-1.5)]", "a (b:- 1) c", "(a:-0)",
]
random.seed(1)
while len(PROMPTS) < 608:
    prompt = "".join(random.choice(["(", ")", "(a", "b)", "[", "]", ":1.3)", ":", "\\", " ", "c", "d e", "BREAK", " BREAK ", "\n", "é", "1.5", "(f:0.7)"])
                     for _ in range(random.randint(1, 14)))
    if prompt not in PROMPTS:
        PROMPTS.append(prompt)

cases, left_out = [], 0
for prompt in PROMPTS:
    try:
        pieces = space["parse_prompt_attention"](prompt)
    except ValueError:  # a weight such as 1.5.5
        left_out += 1
        continue
    cases.append(json.dumps({"prompt": prompt, "pieces": pieces}))
here = os.path.dirname(os.path.abspath(__file__))
open(os.path.join(here, "prompt.json"), "w").write("[\n" + ",\n".join(cases) + "\n]\n")
print(len(cases), "cases,", left_out, "left out")
