"""What to infer: the request as people write it, and as it travels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy.typing as npt
from inferd.oip.v2 import inference_pb2

from inferd_client import parameters as parameter_values
from inferd_client import payloads
from inferd_client.errors import InvalidInput
from inferd_client.parameters import Parameters


@dataclass(frozen=True, slots=True)
class Request:
    """One inference.

    Attributes:
        model: name of the model.
        inputs: arrays, nested lists or scalars by input name. The dtype of the array is
            the datatype that is sent: numpy makes int64 and float64 of Python numbers.
        version: empty for the version that the server prefers.
        outputs: names of the outputs wanted; empty for all.
        id: echoed in the result.
        parameters: passed to the server as they are.
    """

    model: str
    inputs: Mapping[str, npt.ArrayLike]
    version: str = ""
    outputs: Sequence[str] = ()
    id: str = ""
    parameters: Parameters = field(default_factory=dict)


def merge_inputs(
    inputs: Mapping[str, npt.ArrayLike] | None, tensors: Mapping[str, npt.ArrayLike]
) -> dict[str, npt.ArrayLike]:
    """Join the inputs given as a mapping with those given by keyword.

    Raises:
        InvalidInput: a name is in both.
    """
    named = dict(inputs or {})
    twice = sorted(named.keys() & tensors.keys())
    if twice:
        raise InvalidInput(f"inputs given twice: {', '.join(twice)}")
    return named | dict(tensors)


def build(request: Request, request_id: str = "") -> inference_pb2.ModelInferRequest:
    """Serialise the tensors of a request; `request_id` stands in for an absent id.

    Raises:
        InvalidInput: a tensor or parameter that the protocol cannot carry.
    """
    message = inference_pb2.ModelInferRequest(
        model_name=request.model, model_version=request.version, id=request.id or request_id
    )
    for name, value in request.inputs.items():
        tensor, raw = payloads.encode(name, value)
        message.inputs.append(tensor)
        message.raw_input_contents.append(raw)
    for name in request.outputs:
        message.outputs.add(name=name)
    for name, value in request.parameters.items():
        message.parameters[name].CopyFrom(parameter_values.encode(name, value))
    return message
