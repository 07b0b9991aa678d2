"""The Python functions, and the files of ours, that one small request passes on its way.

    python -m benchmarks.functions [--folder CHECKOUT] [-- FLAGS OF SERVE]

One caller sends digits to two servers that count every call of a Python function, the second
one more often; the difference, for each request, is printed. Deterministic but for timers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from inferd_client import Client
from inferd_server.settings.model import shipped_models

from benchmarks.process import serving

FEW, MANY = 200, 1200
LEAST = 0.2
"""Calls a request below which a function is a timer's, not a request's."""
COUNTER = """
import atexit, collections, json, os, sys, threading
calls = collections.Counter()
def count(frame, event, _):
    if event == "call":
        calls[frame.f_code] += 1
def write():
    sys.setprofile(None)
    named = collections.Counter()
    for code, times in calls.copy().items():
        named[f"{code.co_filename}:{code.co_qualname}:{code.co_firstlineno}"] += times
    with open(os.path.join(os.environ["COUNTED"], str(os.getpid())), "w") as file:
        json.dump(named, file)
def end(code, exit=os._exit):
    write()
    exit(code)
atexit.register(write)
os._exit = end  # how processes of a server end
threading.setprofile(count)
sys.setprofile(count)
"""


def counted(python: str, requests: int, flags: Sequence[str]) -> Counter[str]:
    """Return how often each function was called from start to end, by one process or several."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sitecustomize.py").write_text(COUNTER)
        found = Path(folder) / "found"
        found.mkdir()
        os.environ |= {"PYTHONPATH": folder, "COUNTED": str(found)}
        image = np.zeros((1, 8, 8), np.float32)
        serves = serving(shipped_models(), flags, python=python)
        with serves as server, Client(server.url) as client:
            for _ in range(requests):
                client.infer("digits", image=image)
        return sum((Counter(json.loads(file.read_text())) for file in found.iterdir()), Counter())


def passed(python: str, flags: Sequence[str]) -> dict[str, float]:
    """Return calls a request by function, of those that are part of every request."""
    few, many = (counted(python, requests, flags) for requests in (FEW, MANY))
    each = {name: (times - few[name]) / (MANY - FEW) for name, times in many.items()}
    return {name: times for name, times in each.items() if times >= LEAST}


def main() -> None:
    """Print the functions, most called first, and the sums."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="another checkout, installed")
    parser.add_argument("flags", nargs="*", help="flags of inferd serve")
    asked = parser.parse_args()
    python = str(asked.folder / ".venv/bin/python") if asked.folder else sys.executable
    functions = passed(python, asked.flags)
    for name, times in sorted(functions.items(), key=lambda one: -one[1]):
        print(f"{times:6.2f} {name}")
    ours = {name.split(":")[0] for name in functions if "/inferd" in name}
    print(f"{sum(functions.values()):.0f} functions a request, in {len(ours)} files of ours")


if __name__ == "__main__":
    main()
