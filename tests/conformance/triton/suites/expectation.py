"""What a suite expects, tried one by one, and printed as a line of JSON each.

python -m tests.conformance.triton.suites.NAME ADDRESS all|quick
"""

from __future__ import annotations

import json
import queue
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput, InferResult
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

Check: TypeAlias = "Callable[[InferenceServerClient], None]"
PATIENCE = 60.0


@dataclass(frozen=True)
class Expectation:
    """Something that Triton's suite checks; its check raises where this server does otherwise."""

    name: str
    check: Check
    quick: bool = True


class Suite:
    """The expectations of one suite, in their order."""

    def __init__(self) -> None:
        self._all: list[Expectation] = []

    def expects(self, name: str, *, quick: bool = True) -> Callable[[Check], Check]:
        """Add the function below as the check of an expectation."""

        def add(check: Check) -> Check:
            self.add(name, check, quick=quick)
            return check

        return add

    def add(self, name: str, check: Callable[..., None], *args: Any, quick: bool = True) -> None:
        """Add a check that is called with a client and these arguments."""

        def bound(client: InferenceServerClient) -> None:
            check(client, *args)

        self._all.append(Expectation(name, bound, quick))

    def run(self) -> None:
        """Try them against the server that the command line names."""
        address, part = sys.argv[1:3]
        for each in self._all:
            if each.quick or part == "all":
                with InferenceServerClient(address) as client:
                    found = {"case": each.name, "result": outcome(partial(each.check, client))}
                sys.stdout.write(json.dumps(found) + "\n")


def outcome(check: Callable[[], None]) -> str:
    """Return "" where an expectation is met, and what happened instead where it is not."""
    try:
        check()
    except (AssertionError, InferenceServerException, queue.Empty) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def expect(condition: object, found: object = "") -> None:
    """Raise where a condition does not hold, with what was found instead."""
    if not condition:
        raise AssertionError(str(found))


def refused(call: Callable[..., object], *args: Any, text: str = "", **kwargs: Any) -> str:
    """Return the status of a call that must fail, with a text in its message."""
    try:
        call(*args, **kwargs)
    except InferenceServerException as error:
        expect(text in error.message(), error)
        return str(error.status()).removeprefix("StatusCode.")
    raise AssertionError("it was not refused")


def array_input(name: str, array: np.ndarray) -> InferInput:
    """Return an input that holds an array."""
    item = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return item.set_data_from_numpy(array)


def inputs_of(*arrays: np.ndarray) -> list[InferInput]:
    """Return INPUT0, INPUT1, ..."""
    return [array_input(f"INPUT{index}", array) for index, array in enumerate(arrays)]


def row(*values: float, dtype: type = np.float32) -> list[InferInput]:
    """Return INPUT0 with one row."""
    return inputs_of(np.array([values], dtype))


def streamed(client: InferenceServerClient, model: str, **asked: Any) -> InferResult:
    """Return the answer to one request over a stream."""
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    try:
        client.async_stream_infer(model, **asked)
        result, error = answers.get(timeout=PATIENCE)
    finally:
        client.stop_stream()
    if error is not None:
        raise error
    return result


def together(client: InferenceServerClient, calls: Sequence[Any]) -> list[tuple[Any, float]]:
    """Send requests at once; return each answer or error, and after how many seconds it came.

    Args:
        client: that sends.
        calls: keyword arguments of `async_infer`, of each request.
    """
    answers: list[queue.Queue[tuple[Any, float]]] = []
    start = time.monotonic()
    for call in calls:
        mine: queue.Queue[tuple[Any, float]] = queue.Queue()
        answers.append(mine)
        client.async_infer(callback=partial(_keep, mine, start), **call)
    return [mine.get(timeout=PATIENCE) for mine in answers]


def _keep(mine: queue.Queue[tuple[Any, float]], start: float, result: Any, error: Any) -> None:
    mine.put((error or result, time.monotonic() - start))


@dataclass(frozen=True)
class Counts:
    """What the statistics say of one model, or by how much they grew."""

    inferences: int
    executions: int
    batches: dict[int, int]
    """Executions by batch size."""

    def since(self, before: Counts) -> Counts:
        """Return by how much they grew."""
        grown = {
            size: count - before.batches.get(size, 0)
            for size, count in self.batches.items()
            if count > before.batches.get(size, 0)
        }
        return Counts(
            self.inferences - before.inferences, self.executions - before.executions, grown
        )


def counts(client: InferenceServerClient, model: str, version: str = "1") -> Counts:
    """Return the statistics of a version."""
    (found,) = client.get_inference_statistics(model, version).model_stats
    batches = {batch.batch_size: batch.compute_infer.count for batch in found.batch_stats}
    return Counts(found.inference_count, found.execution_count, batches)


def errors(answers: Iterable[tuple[Any, float]]) -> list[Any]:
    """Return the errors among answers."""
    return [answer for answer, _ in answers if isinstance(answer, InferenceServerException)]
