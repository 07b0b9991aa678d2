"""Requests whose values have no datatype of their own, given those of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from inferd.tensors import DATATYPES, Array, datatype_of

from inferd_client import conversion, frames
from inferd_client.errors import InvalidInput
from inferd_client.information import ModelMetadata, TensorInfo
from inferd_client.requests import Request

# Signatures by model and version; None where the server does not tell.
Signatures: TypeAlias = dict[tuple[str, str], ModelMetadata | None]


def wants(request: Request) -> bool:
    """Tell whether a request can be sent only by who knows the model's datatypes.

    Raises:
        InvalidInput: a value that no datatype carries.
    """
    if not isinstance(request.inputs, Mapping) or request.cast:
        return True
    # All are looked at, so that what cannot be sent is refused before the model is asked for.
    looked = [_is_open(name, value) for name, value in request.inputs.items()]
    return any(looked)


def _is_open(name: str, value: Any) -> bool:
    """Text is BYTES whatever the model takes, and arrays are what they are."""
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        return False
    if frames.is_frame(value):
        return True
    if conversion.is_typed(value):
        return False
    with named(name):
        array = conversion.whole(value)
        conversion.require_elements(array)
    return array.dtype.kind != "O" or not all(
        isinstance(element, str | bytes) for element in array.reshape(-1).tolist()
    )


def typed(request: Request, metadata: ModelMetadata | None) -> Request:
    """Return a request with arrays of the model's datatypes where its values have none.

    Args:
        request: what to send.
        metadata: of its model; None leaves it to numpy.

    Raises:
        InvalidInput: a value does not fit the model's datatype.
    """
    if not isinstance(request.inputs, Mapping):
        with named("inputs"):
            if metadata is None:
                raise ValueError("the server does not tell which inputs the model has")
            return replace(request, inputs=frames.tensors(request.inputs, metadata))
    if metadata is None:
        return request
    known = {info.name: info for info in metadata.inputs if info.datatype in DATATYPES}
    return replace(
        request,
        inputs={
            # Names that the model does not have are the server's to refuse.
            name: _typed(value, known[name], cast=request.cast) if name in known else value
            for name, value in request.inputs.items()
        },
    )


def _typed(value: Any, info: TensorInfo, *, cast: bool) -> Any:
    with named(info.name):
        if frames.is_frame(value):
            return frames.matrix(value, info)
        if conversion.is_typed(value) and not cast:
            return value
        return conversion.converted(value, info)


def is_refused_for_datatype(request: Request, message: str) -> bool:
    """Tell whether a server's sentence speaks of the datatype that an array was sent as."""
    if not isinstance(request.inputs, Mapping):
        return False
    sent = {datatype_of(value.dtype) for value in request.inputs.values() if _is_cast(value)}
    return any(datatype in message for datatype in sent)


def _is_cast(value: Any) -> TypeGuard[Array]:
    """Tell whether a value is an array of numbers, which a cast could change."""
    return isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "iufb"


def cure(request: Request, metadata: ModelMetadata | None) -> str:
    """Say how arrays of another datatype than the model's can be sent; empty where none is."""
    if metadata is None or not isinstance(request.inputs, Mapping):
        return ""
    for info in metadata.inputs:
        value = request.inputs.get(info.name)
        if info.datatype not in DATATYPES or not _is_cast(value):
            continue
        if datatype_of(value.dtype) != info.datatype:
            return f"; pass cast=True, or {info.name}.astype({info.dtype.name!r})"
    return ""


@contextmanager
def named(name: str) -> Iterator[None]:
    """Turn what a conversion raises into InvalidInput that names the input."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"input {name!r}: {error}") from error
