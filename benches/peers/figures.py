"""What the files of the peers share: sizes, repeated calls, and the line of JSON that they print."""
import json
import os
import time
from pathlib import Path

SIDE, ROWS, TOKENS, WIDTH = 512, 2, 77, 768
REPEATS = int(os.environ.get("PEERS_REPEATS", "2"))
THREADS = len(os.sched_getaffinity(0))


def seconds(call, repeats=REPEATS):
    """The shortest of `repeats` calls, after one that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def peak_mb():
    """The most memory that this process had resident."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1000 * 1.024


def tell(version, step, decode, memory):
    print(json.dumps({"version": version, "step": step, "decode": decode, "memory": memory}))
