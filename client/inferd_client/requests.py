"""What to infer: the request as people write it, and as it travels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inferd.oip.v2 import inference_pb2
from inferd.tensors import Array

from inferd_client import conversion, payloads
from inferd_client import parameters as parameter_values
from inferd_client.errors import InvalidInput
from inferd_client.frames import Frame
from inferd_client.parameters import Parameters
from inferd_client.sendable import sendable

LARGEST_MESSAGE = 2**31 - 1
"""Bytes that protobuf puts into one message."""


@dataclass(frozen=True, slots=True)
class Request:
    """One inference.

    Attributes:
        model: name of the model.
        inputs: by input name arrays, whose dtype is the datatype that is sent, or nested
            lists, numbers and DataFrames, which take the model's. Or one DataFrame: all of
            it for a model with one input, else a column for each input.
        version: empty for the version that the server prefers.
        outputs: names of the outputs wanted, or one name; empty for all.
        id: echoed in the result.
        parameters: passed to the server as they are.
        cast: give arrays the model's datatypes, too; refused where that changes a whole number.
    """

    model: str
    inputs: Mapping[str, Any] | Frame
    version: str = ""
    outputs: Sequence[str] = ()
    id: str = ""
    parameters: Parameters = field(default_factory=dict)
    cast: bool = False


def merge_inputs(
    inputs: Mapping[str, Any] | Frame | None, tensors: Mapping[str, Any]
) -> Mapping[str, Any] | Frame:
    """Join the inputs given as a mapping with those given by keyword.

    Raises:
        InvalidInput: a name is in both, or a DataFrame is not the only input.
    """
    if not isinstance(inputs, Mapping | None):
        if tensors:
            raise InvalidInput("a DataFrame as inputs stands for all of them")
        return inputs
    named = dict(inputs or {})
    twice = sorted(named.keys() & tensors.keys())
    if twice:
        raise InvalidInput(f"inputs given twice: {', '.join(twice)}")
    return named | dict(tensors)


def arrays_of(request: Request) -> dict[str, Array]:
    """Return the inputs of a request as arrays.

    Raises:
        InvalidInput: one is none, or a DataFrame stands for all of them.
    """
    if not isinstance(request.inputs, Mapping):
        raise InvalidInput("a DataFrame can be sent only by a client, which knows the model")
    try:
        return {name: conversion.whole(value) for name, value in request.inputs.items()}
    except ValueError as error:
        raise InvalidInput(f"the inputs are no arrays: {error}") from error


@sendable
def build(request: Request, request_id: str = "") -> inference_pb2.ModelInferRequest:
    """Serialise the tensors of a request; `request_id` stands in for an absent id.

    Raises:
        InvalidInput: a tensor, name or parameter that the protocol cannot carry.
    """
    message = inference_pb2.ModelInferRequest(
        model_name=request.model, model_version=request.version, id=request.id or request_id
    )
    if not isinstance(request.inputs, Mapping):
        raise InvalidInput("a DataFrame can be sent only by a client, which knows the model")
    for name, value in request.inputs.items():
        tensor, raw = payloads.encode(name, value)
        message.inputs.append(tensor)
        message.raw_input_contents.append(raw)
    if sum(map(len, message.raw_input_contents)) > LARGEST_MESSAGE:
        raise InvalidInput("the inputs take more than the 2 GiB that a message can hold")
    for name in (request.outputs,) if isinstance(request.outputs, str) else request.outputs:
        message.outputs.add(name=name)
    for name, value in request.parameters.items():
        message.parameters[name].CopyFrom(parameter_values.encode(name, value))
    return message
