"""Measures stablehand by its own `bench`: python stablehand.py MODEL"""
import json
import os
import subprocess
import sys
from pathlib import Path

from figures import SIDE, tell


def main():
    program = os.environ["STABLEHAND_BIN"]
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    command = [program, "bench", "--json", "--device", "cpu", "--model", str(Path(sys.argv[1]) / "ldm.safetensors"),
               "--sizes", f"{SIDE}x{SIDE}", "--only", "decode,step", "--rows", "2"]
    rows = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)["rows"]

    def value(measurement, note=""):
        return next(row["value"] for row in rows if row["measurement"] == measurement and note in row.get("note", ""))

    tell(version, value("step") / 1000, value("decode") / 1000, value("host memory", "at most"))


if __name__ == "__main__":
    main()
