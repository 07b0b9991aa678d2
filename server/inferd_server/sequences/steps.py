"""The steps of sequences: from parameters to rows that travel with a request's inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from inferd.oip.v2.inference_pb2 import InferParameter
from inferd.tensors import Array
from inferd_engines.engine import RowSpec, Tensor

from inferd_server.errors import InvalidInput

ID, START, END = "sequence_id", "sequence_start", "sequence_end"
"""Request parameters, as Triton's extension names them."""
KEY = Tensor("inferd.sequence_key", np.dtype(np.uint64), (None, 1))
MARKS = Tensor("inferd.sequence_marks", np.dtype(np.uint8), (None, 1))
HIDDEN = (KEY, MARKS)
"""Inputs that the server adds: callers do not see them, and no engine does."""
STARTS, ENDS = 1, 2
LARGEST_KEY = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Step:
    """One request of a sequence."""

    key: int
    starts: bool
    ends: bool

    def write(self, rows: Sequence[Array]) -> None:
        """Write it to one row of each of HIDDEN."""
        marks = STARTS * self.starts | ENDS * self.ends
        for row, value in zip(rows, (self.key, marks), strict=True):
            row[...] = value


def hidden_specs() -> list[RowSpec]:
    """Return dtype and row shape of HIDDEN."""
    return [(tensor.dtype, (1,)) for tensor in HIDDEN]


def read_steps(keys: Array, marks: Array) -> list[Step]:
    """Return the steps in rows of HIDDEN."""
    pairs = zip(keys.reshape(-1).tolist(), marks.reshape(-1).tolist(), strict=True)
    return [Step(key, bool(mark & STARTS), bool(mark & ENDS)) for key, mark in pairs]


def step_of(
    parameters: Mapping[str, InferParameter],
    rows: int,
    *,
    stateful: bool,
    largest: int = LARGEST_KEY,
) -> Step | None:
    """Read a request's place in a sequence; None for a model without any, as Triton does it.

    Args:
        parameters: of the request.
        rows: that it brings.
        stateful: whether its model has sequences.
        largest: sequence id that the model can be told.

    Raises:
        InvalidInput: the request names no sequence, or one that the model cannot be told, or
            brings several rows, or a parameter is of the wrong kind.
    """
    if not stateful:
        return None
    key = _key(parameters[ID]) if ID in parameters else 0
    if not key:
        raise InvalidInput(
            f"the request: {ID} is missing; requests of the model build on each other"
        )
    if key > largest:
        raise InvalidInput(
            f"the request: {ID} is {key}; the model takes whole numbers up to {largest}"
        )
    if rows > 1:
        raise InvalidInput(f"the request has {rows} rows; a request of a sequence has one")
    return Step(key, _flag(parameters, START), _flag(parameters, END))


def _key(parameter: InferParameter) -> int:
    kind = parameter.WhichOneof("parameter_choice")
    if kind == "string_param":
        text = parameter.string_param.encode()
        digest = hashlib.blake2b(text, digest_size=8).digest()
        return int.from_bytes(digest, "little") if text else 0
    if kind not in {"int64_param", "uint64_param"}:
        raise InvalidInput(f"the request: {ID} must be a whole number or a string")
    # Clients send what is a hash to them as int64, negative half the time.
    return int(getattr(parameter, kind)) % (LARGEST_KEY + 1)


def _flag(parameters: Mapping[str, InferParameter], name: str) -> bool:
    if name not in parameters:
        return False
    if parameters[name].WhichOneof("parameter_choice") != "bool_param":
        raise InvalidInput(f"the request: {name} must be a boolean")
    return bool(parameters[name].bool_param)
