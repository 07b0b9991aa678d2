"""A request with more rows than a model takes at once, as several, and their results as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from inferd.tensors import Array

from inferd_client.errors import InvalidInput, InvalidResponse
from inferd_client.operations import SEQUENCE
from inferd_client.requests import Request, arrays_of
from inferd_client.results import TOKEN, Result


def split(request: Request, maximum: int) -> list[Request]:
    """Return requests of at most `maximum` rows each; 0 for a model that takes any number.

    Raises:
        InvalidInput: its inputs have no rows in common, or it belongs to a sequence.
    """
    inputs = arrays_of(request)
    rows = {array.shape[0] if array.ndim else 0 for array in inputs.values()}
    if len(rows) != 1 or SEQUENCE in request.parameters:
        raise InvalidInput("only inputs with the same number of rows, of no sequence, can be split")
    total = rows.pop()
    if maximum < 1 or total <= maximum:
        return [request]
    if request.parameters.get(TOKEN):
        raise InvalidInput(f"a prediction token is of one call: at most {maximum} rows")
    return [
        replace(
            request, inputs={name: each[start : start + maximum] for name, each in inputs.items()}
        )
        for start in range(0, total, maximum)
    ]


def join(results: Sequence[Result], requests: Sequence[Request]) -> Result:
    """Return the results of split requests as the one of them all.

    Raises:
        InvalidResponse: an output has not a row for each row sent, or the model was replaced.
    """
    first = results[0]
    if len(results) == 1:
        return first
    if len({(each.model_version, *each) for each in results}) != 1:
        raise InvalidResponse("the model was replaced while its request was sent in parts")
    sent = [len(next(iter(arrays_of(each).values()))) for each in requests]
    # The token of the first part would stand for all.
    parameters = {name: value for name, value in first.parameters.items() if name != TOKEN}
    outputs = {name: _joined(name, results, sent) for name in first}
    return replace(first, parameters=parameters, outputs=outputs)


def _joined(name: str, results: Sequence[Result], sent: Sequence[int]) -> Array:
    arrays = [result[name] for result in results]
    if any(each.shape[:1] != (rows,) for each, rows in zip(arrays, sent, strict=True)):
        raise InvalidResponse(f"output {name!r} has not one row for each row sent: do not split")
    return np.concatenate(arrays)
