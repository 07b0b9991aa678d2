"""What these commands have in common: flags, a progress bar, what is written and printed."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from inferd_engines.conversion.comparing import Distance, Speed
from inferd_engines.conversion.rows import Answers, Rows
from inferd_engines.engine import EngineError
from inferd_engines.tensorrt import disk

FAILED = 1


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add what the commands that write a model have."""
    parser.add_argument(
        "--golden",
        type=Path,
        metavar="FILE.npz",
        help="also write one batch and its answers, for inferd models add --golden",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def guarded(
    command: str, arguments: argparse.Namespace, do: Callable[[argparse.Namespace], int]
) -> int:
    """Do it, tell of what went wrong in one line, and return the exit code."""
    try:
        return do(arguments)
    except (EngineError, OSError) as error:
        print(f"inferd {command}: {' '.join(str(error).split())}", file=sys.stderr)
        return FAILED


@contextmanager
def counting(what: str) -> Iterator[Callable[[], object]]:
    """Give what counts the runs of a model, on a terminal."""
    with tqdm(desc=what, unit="run", leave=False, disable=None) as bar:
        yield bar.update


def write(target: Path, content: bytes, golden: Path | None, rows: Rows, answers: Answers) -> None:
    """Write a model, and what it answers to its first rows; each file whole or not at all.

    Raises:
        OSError: there is no room, or the folder cannot be written.
    """
    if golden is not None:
        held = io.BytesIO()
        arrays = {**rows.inputs, **answers}
        np.savez(
            held, allow_pickle=False, **{name: one[: rows.batch] for name, one in arrays.items()}
        )
        disk.replace(golden, held.getvalue())
    disk.replace(target, content)


def document(
    found: Mapping[str, Distance], measured: Sequence[Speed] = (), **facts: Any
) -> dict[str, Any]:
    """Return what is told in JSON."""
    speed = [{**asdict(one), "ratio": one.ratio} for one in measured]
    return {**facts, "outputs": {name: asdict(one) for name, one in found.items()}, "speed": speed}


def distance_lines(found: Mapping[str, Distance]) -> list[str]:
    """Say how far each output is from the original's."""
    lines = []
    for name, one in found.items():
        same = "" if one.agreement is None else f", {one.agreement:.2%} of the classes agree"
        lines.append(
            f"{name}: off by at most {one.worst:.3g}, {one.relative:.3g} of its size{same}"
        )
    return lines


def speed_lines(measured: Sequence[Speed]) -> list[str]:
    """Say how fast both models are."""
    return [
        f"{one.rows} rows: {one.before_ms:.3f} ms and {one.after_ms:.3f} ms, {one.ratio:.2f} times "
        "as fast"
        for one in measured
    ]


def printed(told: Mapping[str, Any], lines: Sequence[str], *, as_json: bool) -> None:
    """Print what was done: as JSON, or for people."""
    print(json.dumps(told, indent=2) if as_json else "\n".join(lines))
