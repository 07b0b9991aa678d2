"""ONNX' own backend tests, served: what ONNX Runtime runs is answered as it answers.

`make test` takes every 12th case, `make test-slow` all of them, and prints the counts of
docs/models.md (`-s`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from inferd_client import Client, InferdError
from inferd_client.information import ModelVersionStatus

from tests.conformance.process import ServerProcess

from .cases import Array, Case, all_cases
from .runtime import Expected, Fate, expected

pytestmark = pytest.mark.timeout(600)

EACH = 24
"""One case of so many is served in `make test`."""
PATIENCE = 300.0
SENTENCES = ("export the model so that it", "end the model with a Cast", "cannot give BF16 outputs")
"""What a refused model says is to be done."""

UNBATCHED = "max_batch_size: 0\n"
SPLIT = ("--processes", "split")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a case, and what is wrong with that, if anything is."""

    fate: Fate
    fault: str = ""


@pytest.fixture(scope="module")
def cases() -> Sequence[tuple[Case, Expected]]:
    """Every case, with what bare ONNX Runtime makes of it."""
    return [(case, expected(case)) for case in all_cases()]


@pytest.mark.parametrize(
    ("yaml", "flags"), [("", ()), pytest.param(UNBATCHED, SPLIT, marks=pytest.mark.slow)]
)
def test_a_part_of_the_suite_is_served_as_onnx_runtime_answers(
    cases: Sequence[tuple[Case, Expected]], tmp_path: Path, yaml: str, flags: tuple[str, ...]
) -> None:
    check(cases[::EACH], tmp_path, yaml, flags)


@pytest.mark.slow
@pytest.mark.parametrize("yaml", ["", UNBATCHED], ids=["defaults", "unbatched"])
@pytest.mark.parametrize("flags", [(), SPLIT], ids=["one process", "split"])
def test_the_whole_suite_is_served_as_onnx_runtime_answers(
    cases: Sequence[tuple[Case, Expected]], tmp_path: Path, yaml: str, flags: tuple[str, ...]
) -> None:
    check(cases, tmp_path, yaml, flags)


def check(
    cases: Sequence[tuple[Case, Expected]], folder: Path, yaml: str, flags: Sequence[str]
) -> None:
    """Serve cases and hold every one to its fate."""
    outcomes = serve(cases, folder, yaml, flags)
    counts = Counter(outcome.fate for outcome in outcomes.values())
    print(f"\n{len(cases)} models:", ", ".join(f"{counts[fate]} {fate.value}" for fate in Fate))
    assert not {name: one.fault for name, one in outcomes.items() if one.fault}
    assert counts == Counter(wanted.fate for _, wanted in cases)


def serve(
    cases: Sequence[tuple[Case, Expected]], folder: Path, yaml: str, flags: Sequence[str]
) -> Mapping[str, Outcome]:
    """Ask one server for all of them."""
    for case, _ in cases:
        lay_out(case, folder, yaml)
    with serving(folder, flags) as client, ThreadPoolExecutor(4) as pool:
        models = {model.name: model for model in client.status().models}
        assert models.keys() == {case.name for case, _ in cases}
        assert {model.state for model in models.values()} <= {"READY", "UNAVAILABLE"}
        found = pool.map(lambda pair: judge(client, models[pair[0].name], *pair), cases)
        return {case.name: outcome for (case, _), outcome in zip(cases, found, strict=True)}


def lay_out(case: Case, folder: Path, yaml: str) -> None:
    """Make a model of the repository, with a model.yaml if it has any text."""
    path = folder / case.name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(case.content)
    if yaml:
        (folder / case.name / "model.yaml").write_text(yaml, encoding="utf-8")


@contextmanager
def serving(folder: Path, flags: Sequence[str]) -> Iterator[Client]:
    """A client of a server that has tried to load every model, and ends well."""
    server = ServerProcess(folder, "--strict-readiness", "false", "--verdict-store", "", *flags)
    try:
        port = server.wait_for("listening")["grpc_port"]
        server.wait_for("ready", PATIENCE)
        with Client(f"127.0.0.1:{port}", timeout=60) as client:
            yield client
            assert client.ready()
    finally:
        code = server.stop()
    assert code == 0


def judge(client: Client, model: ModelVersionStatus, case: Case, wanted: Expected) -> Outcome:
    """Send the case, whatever its fate: the server must live through it."""
    if wanted.fate is Fate.REFUSED:
        helps = any(sentence in model.reason for sentence in SENTENCES)
        fault = "" if helps and model.state == "UNAVAILABLE" else f"{model.state}: {model.reason}"
        return Outcome(Fate.REFUSED, fault)
    try:
        answers = client.infer(case.name, inputs=case.inputs).outputs
    except InferdError as error:
        served = wanted.fate is Fate.SERVED
        return Outcome(Fate.NOT_RUN, f"{model.reason} {error!r}" if served else "")
    if wanted.fate is Fate.NOT_RUN:
        return Outcome(Fate.SERVED, f"answered, where ONNX Runtime says {wanted.reason}")
    return Outcome(Fate.SERVED, difference(answers, wanted.outputs, case))


def difference(got: Mapping[str, Array], wanted: Mapping[str, Array], case: Case) -> str:
    """Say where an answer is not ONNX Runtime's own; "" if it is, bit for bit but for NaN."""
    if got.keys() != wanted.keys():
        return f"outputs {sorted(got)}, not {sorted(wanted)}"
    for name, array in wanted.items():
        came, right = got[name], encoded(array)
        if (came.dtype, came.shape) != (right.dtype, right.shape):
            return f"{name}: {came.dtype}{came.shape}, not {right.dtype}{right.shape}"
        if not case.random and not same(came, right):
            return f"{name}: {came}, not {right}"
    return ""


def encoded(array: Array) -> Array:
    """Return text as the bytes that the protocol carries."""
    if array.dtype != object:
        return array
    flat = [element.encode() for element in array.reshape(-1).tolist()]
    result = np.empty(len(flat), object)
    result[:] = flat
    return result.reshape(array.shape)


def same(came: Array, right: Array) -> bool:
    """Compare the bits of two arrays of one shape, any NaN like any other."""
    if came.dtype == object:
        return bool(came.tolist() == right.tolist())
    bits = f"u{right.itemsize}"
    not_numbers = (came != came) & (right != right)  # noqa: PLR0124 - only NaN is not itself
    return bool(np.all((came.view(bits) == right.view(bits)) | not_numbers))
