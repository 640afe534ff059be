"""Runs the tests of a Python client, and prints one TAP line for each."""

import traceback


def run(names):
    """Calls every function of a script's `globals()` whose name begins with `test_`. Returns the script's exit code."""
    failed = False
    for name, test in list(names.items()):
        if not name.startswith("test_"):
            continue
        sentence = name.removeprefix("test_").replace("_", " ")
        try:
            test()
            print(f"ok - {sentence}", flush=True)
        except Exception:
            failed = True
            print(f"not ok - {sentence}")
            for line in traceback.format_exc().splitlines():
                print(f"  {line}")
            print(end="", flush=True)
    return 1 if failed else 0
