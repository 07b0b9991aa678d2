"""Runs cases and prints what they gave, a line of JSON each.

A case is a function of a client that is named for what it does; the test that asserts on
its result stands in the test module of the same name.
"""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from tritonclient import grpc
from tritonclient.grpc import aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

Case = Callable[[grpc.InferenceServerClient], object]
AsyncCase = Callable[[aio.InferenceServerClient], Awaitable[object]]


def run(cases: Sequence[Case]) -> None:
    """Run each case with a client of its own to the server that the command line names."""
    for case in cases:
        with grpc.InferenceServerClient(sys.argv[1]) as client:
            report(case.__name__, partial(case, client))


def run_async(cases: Sequence[AsyncCase]) -> None:
    """Run each case in an event loop of its own."""

    async def attempt(case: AsyncCase) -> object:
        async with aio.InferenceServerClient(sys.argv[1]) as client:
            return await case(client)

    def attempt_alone(case: AsyncCase) -> object:
        return asyncio.run(attempt(case))

    for case in cases:
        report(case.__name__, partial(attempt_alone, case))


def report(name: str, case: Callable[[], object]) -> None:
    """Print a case's result, or the traceback of what it raised."""
    try:
        line = json.dumps({"case": name, "result": case()})
    except Exception:
        line = json.dumps({"case": name, "error": traceback.format_exc()})
    sys.stdout.write(line + "\n")


def refusal(function: Callable[..., object], *args: Any, **kwargs: Any) -> dict[str, str | None]:
    """Return the status and message of a call that must fail."""
    try:
        function(*args, **kwargs)
    except InferenceServerException as error:
        return problem(error)
    raise AssertionError(f"{function.__name__} of {args} {kwargs} was not refused")


def problem(error: InferenceServerException) -> dict[str, str | None]:
    """Return an error's status code, such as "NOT_FOUND", and its message."""
    status = error.status()
    return {"code": status and status.removeprefix("StatusCode."), "message": error.message()}


def tensor(name: str, array: np.ndarray) -> grpc.InferInput:
    """Return an input that holds an array."""
    item = grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return item.set_data_from_numpy(array)


def simple_inputs(first: int = 1) -> list[grpc.InferInput]:
    """Return inputs for the model `simple`: `first`, `first` + 1, ... and ones."""
    ones = np.ones((1, 16), dtype=np.int32)
    rising = np.arange(first, first + 16, dtype=np.int32)[np.newaxis]
    return [tensor("INPUT0", rising), tensor("INPUT1", ones)]


def row(*values: float) -> list[grpc.InferInput]:
    """Return INPUT0 FP32 [1, n]."""
    return [tensor("INPUT0", np.array([values], dtype=np.float32))]


def value(result: grpc.InferResult, name: str = "OUTPUT0") -> Any:
    """Return an output as nested lists, BYTES elements as text."""
    array = result.as_numpy(name)
    if array.dtype == object:
        array = np.vectorize(bytes.decode, otypes=[object])(array)
    return array.tolist()
