"""inferd check: how far the answers of one model are from another's, and how fast it is."""

from __future__ import annotations

import argparse
from contextlib import ExitStack, closing
from pathlib import Path

from inferd_engines.conversion.commands import done
from inferd_engines.conversion.comparing import Distance, distances, speeds
from inferd_engines.conversion.rows import BATCH, answers, read_rows
from inferd_engines.engine import EngineOptions
from inferd_engines.standard import open_onnx_cpu

HELP = "compare two models on data: answers, classes, speed"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add = parser.add_argument
    add("before", type=Path, metavar="A.onnx")
    add("after", type=Path, metavar="B.onnx")
    add("--data", type=Path, required=True, metavar="DATA.npz", help="rows by input name")
    add("--max-error", type=float, metavar="X", help="fail where an element is off by more")
    add("--min-agreement", type=float, metavar="X", help="fail where fewer classes agree: 0.99")
    add("--threads", type=int, default=0, help="of a run (default: as the server chooses)")
    add("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Compare, print, and return the exit code."""
    return done.guarded("check", arguments, checked)


def checked(arguments: argparse.Namespace) -> int:
    """Compare and print; return 1 where the models differ by more than the flags allow.

    Raises:
        EngineError: a model or the data cannot be read, or the models have other outputs.
    """
    options = EngineOptions(threads=arguments.threads)
    with ExitStack() as opened, done.counting("comparing") as ran:
        one, other = (
            opened.enter_context(closing(open_onnx_cpu(path, options)))
            for path in (arguments.before, arguments.after)
        )
        rows = read_rows(arguments.data, one.signature)
        read_rows(arguments.data, other.signature)
        found = distances(answers(one, rows, ran), answers(other, rows, ran))
        sizes = (1, BATCH) if rows.batch == BATCH else (rows.batch,)
        measured = speeds(one, other, rows, sizes)
    wrong = problems(found, arguments.max_error, arguments.min_agreement)
    told = done.document(found, measured, rows=len(rows), problems=wrong)
    lines = [*done.distance_lines(found), *done.speed_lines(measured), *wrong]
    done.printed(told, lines, as_json=arguments.json)
    return 1 if wrong else 0


def problems(
    found: dict[str, Distance], max_error: float | None, min_agreement: float | None
) -> list[str]:
    """Say what is worse than was allowed."""
    wrong = []
    for name, one in found.items():
        if max_error is not None and not one.worst <= max_error:
            wrong.append(f"{name} is off by {one.worst:.3g}, more than {max_error:g}")
        share = 1.0 if one.agreement is None else one.agreement
        if min_agreement is not None and share < min_agreement:
            wrong.append(f"{name}: {share:.2%} of the classes agree, less than {min_agreement:.2%}")
    return wrong
