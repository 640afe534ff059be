"""Measures every program in turns and prints one table: python measure.py MODEL [--rounds N] [--only NAMES] [--avx2]"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import without_avx512

HERE = Path(__file__).resolve().parent
# The first is the one that the others are compared with.
PEERS = {
    "stablehand": ("stablehand.py", "stablehand"),
    "openvino": ("openvino_peer.py", "OpenVINO"),
    "torch": ("torch_peer.py", "torch"),
    "sdcpp": ("sdcpp_peer.py", "stable-diffusion.cpp"),
}
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_tile", "asimd", "sve")


def measure(script, model):
    """One program's figures, from a process of its own."""
    ran = subprocess.run([sys.executable, HERE / script, model], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


def twenty(figures):
    return 20 * figures["step"] + figures["decode"]


def machine():
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    words = set(info.split())
    name = next((line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), platform.machine())
    return f"{name}, {len(os.sched_getaffinity(0))} threads, {' '.join(i for i in INSTRUCTIONS if i in words)}"


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("model", type=Path)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--only", default=",".join(PEERS), help="names, separated by commas")
    arguments.add_argument("--avx2", action="store_true", help="hold all programs to AVX2; without stable-diffusion.cpp")
    given = arguments.parse_args()
    if given.avx2:
        # That one is compiled for this processor.
        del PEERS["sdcpp"]
        os.environ.update(without_avx512.environment(given.model.parent / "avx2", os.environ["STABLEHAND_BIN"]))
    names = [name for name in PEERS if name in given.only.split(",")]

    if "openvino" in names and not (given.model / "openvino/decoder.xml").exists():
        subprocess.run([sys.executable, HERE / "openvino_peer.py", given.model], check=True)
    rounds = []
    for index in range(given.rounds):
        found = {}
        for name in names:
            found[name] = measure(PEERS[name][0], given.model)
            print(f"round {index + 1}: {name} {found[name]}", file=sys.stderr, flush=True)
        rounds.append(found)

    base = names[0]
    held = " held to AVX2" if given.avx2 else ""
    print(f"\n{machine()}{held}; {given.rounds} rounds\n")
    print("| program | step | decode | 20 steps | memory | our rate, step | 20 steps |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in names:
        def median(figure):
            return statistics.median(figure(found[name]) for found in rounds)

        def ratio(figure):
            return statistics.median(figure(found[name]) / figure(found[base]) for found in rounds)

        version = rounds[0][name]["version"]
        step, decode, memory = (median(lambda found, key=key: found[key]) for key in ("step", "decode", "memory"))
        ratios = f"{ratio(lambda found: found['step']):.2f} × | {ratio(twenty):.2f} ×" if name != base else "1 | 1"
        print(f"| {PEERS[name][1]} {version} | {step:.2f} s | {decode:.1f} s | {median(twenty):.0f} s | {memory / 1000:.1f} GB | {ratios} |")


if __name__ == "__main__":
    main()
