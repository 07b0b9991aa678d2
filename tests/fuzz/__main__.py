"""`make fuzz`: fuzz every target for its share of the time, and keep what covers something new."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz import kept
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
FOUND = ROOT / ".fuzz"
"""On this machine, large."""
KEPT = FOUND / "kept"
"""What is in the repository, unpacked; `test_replay.py` runs all of it."""
LONGEST = 400
MARGIN_S = 120.0


def main(arguments: Sequence[str]) -> int:
    """Fuzz, then minimise; return 1 if anything was found, which is kept in the corpus."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations; 0 is random")
    parser.add_argument("targets", nargs="*", metavar="target", help=", ".join(TARGETS))
    given = parser.parse_args(arguments)
    chosen = given.targets or list(TARGETS)
    for name in chosen:
        plant(name)
    share = max(1, given.seconds // len(chosen))
    bad = [name for name in chosen if not fuzz(name, share, given.seed)]
    for name in chosen:
        if name not in bad:
            libfuzzer(name, share + MARGIN_S, "-merge=1", str(KEPT / name), str(FOUND / name))
        kept.pack(name, KEPT / name)
    print(f"found something: {', '.join(bad)}" if bad else "found nothing")
    return 1 if bad else 0


def plant(name: str) -> None:
    """Write the first inputs of a target."""
    (KEPT / name).mkdir(parents=True, exist_ok=True)
    (FOUND / name).mkdir(parents=True, exist_ok=True)
    kept.unpack(name, KEPT / name)
    for number, seed in enumerate(seeds()[name]):
        (FOUND / name / f"seed-{number}").write_bytes(seed)


def fuzz(name: str, seconds: int, seed: int) -> bool:
    """Fuzz one target; False if it failed on something, which is then in the corpus."""
    limits = (f"-max_total_time={seconds}", f"-seed={seed}", "-print_final_stats=1")
    artifacts = f"-artifact_prefix={KEPT / name}/"
    folders = (str(FOUND / name), str(KEPT / name))
    done = libfuzzer(name, seconds + MARGIN_S, *limits, "-timeout=20", artifacts, *folders)
    runs = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    print(f"{name}: {runs[1] if runs else '?'} runs in {seconds} s", flush=True)
    if done.returncode:
        print(done.stdout, done.stderr[-4000:], sep="\n")
    return done.returncode == 0


def libfuzzer(name: str, limit: float, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run a target under libFuzzer, in a process of its own."""
    command = [sys.executable, "-m", "tests.fuzz.one", name, f"-max_len={LONGEST}", *flags]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
