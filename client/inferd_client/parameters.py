"""Parameters of a request or response: a flat mapping of names to plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from inferd.oip.v2 import inference_pb2

from inferd_client.errors import InvalidInput

Parameter: TypeAlias = bool | int | float | str
Parameters: TypeAlias = Mapping[str, Parameter]

_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**64)


def encode(name: str, value: Parameter) -> inference_pb2.InferParameter:
    """Wrap a value in the field of its type; integers above int64 go as uint64.

    Raises:
        InvalidInput: the type or size has no field in the protocol.
    """
    match value:
        case bool():  # before int, which it also is
            return inference_pb2.InferParameter(bool_param=value)
        case int() if value in _INT64:
            return inference_pb2.InferParameter(int64_param=value)
        case int() if value in _UINT64:
            return inference_pb2.InferParameter(uint64_param=value)
        case float():
            return inference_pb2.InferParameter(double_param=value)
        case str():
            return inference_pb2.InferParameter(string_param=value)
    raise InvalidInput(f"parameter {name!r} cannot be {value!r}: bool, int, float and str travel")


def decode(parameters: Mapping[str, inference_pb2.InferParameter]) -> dict[str, Parameter]:
    """Unwrap every parameter that has a value."""
    chosen = {name: wrapped.WhichOneof("parameter_choice") for name, wrapped in parameters.items()}
    return {name: getattr(parameters[name], field) for name, field in chosen.items() if field}
