"""How to hold the programs to AVX2 on a processor with AVX-512.

OpenVINO and torch have settings for it. stablehand and ONNX Runtime ask the processor: `xgetbv` tells which registers the system
saves. Copies of them get two other instructions in its place, which say that it saves none of AVX-512's. They write below the stack's
end, where a function that calls no other may keep values: if a copy fails or draws wrong pictures, that is why.
"""
import os
import subprocess
from pathlib import Path

ASKS = b"\x0f\x01\xd0"  # xgetbv
SAYS = b"\x6a\x07\x58"  # push 7; pop rax: the registers of x87, SSE and AVX


def environment(folder, program):
    """The variables for the peers' processes. Copies are made in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    cache = folder / "cache"
    draws = [program, "generate", "a fox", "--steps", "1", "--device", "cpu", "--output", folder / "fox.png"]
    subprocess.run(draws, env={**os.environ, "STABLEHAND_CACHE_DIR": str(cache)}, stdout=subprocess.DEVNULL, check=True)
    library = next(cache.rglob("libonnxruntime.so*"))
    return {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "STABLEHAND_BIN": str(copy_without(Path(program), folder / "stablehand")),
        "STABLEHAND_ORT_DYLIB": str(copy_without(library, folder / "libonnxruntime.so")),
        # What it has timed with AVX-512 does not count here.
        "STABLEHAND_CPU_SPEED": "fast",
    }


def copy_without(source, target):
    """Copies a program or library whose code then finds no AVX-512. Needs objdump."""
    code = bytearray(source.read_bytes())
    sections = subprocess.run(["objdump", "--section-headers", source], capture_output=True, text=True, check=True).stdout
    # Number, name, size, address, address in memory, offset in the file.
    fields = next(fields for fields in map(str.split, sections.splitlines()) if fields[1:2] == [".text"])
    address, offset = int(fields[3], 16), int(fields[5], 16)
    listing = subprocess.Popen(["objdump", "--disassemble", "--no-show-raw-insn", "--section=.text", source], stdout=subprocess.PIPE, text=True)
    for line in listing.stdout:
        if line.rstrip().endswith("xgetbv"):
            at = int(line.split(":")[0], 16) - address + offset
            assert code[at:at + len(ASKS)] == ASKS, hex(at)
            code[at:at + len(ASKS)] = SAYS
    target.write_bytes(code)
    target.chmod(0o755)
    return target
