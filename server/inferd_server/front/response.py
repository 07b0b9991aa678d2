"""Responses of requests that look alike: their header is made once and used again.

A response is its header, then every output's tag, length and bytes, then the id. The generated
class makes the header, and reads the fields in any order. A header is used again only for outputs
of exactly the dtypes and shapes that it was made for, which is all that it says of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from inferd.tensors import Array, Buffer

from inferd_server.front.answer import Target, encode_response, tensor_bytes

# Up to here a copy of its own is cheaper than a view.
SMALL = 4096


class Part(NamedTuple):
    """One output of a prebuilt response."""

    target: Target
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    before: bytes
    """All that stands between the last output's elements and this one's."""


@dataclass(frozen=True, slots=True)
class Unnamed:
    """What is echoed in every response to requests that look alike."""

    model_name: str
    id: str = ""


class Responses:
    """Encodes the responses to one form of request. Calls may come from any thread."""

    def __init__(self, model_name: str, version: int, targets: Sequence[Target]) -> None:
        """Prepare.

        Args:
            model_name: as the callers wrote it.
            version: that serves.
            targets: what to send, in order.
        """
        self._echo = Unnamed(model_name)
        self._version = version
        self.targets = targets
        self.classifies = any(target.classes for target in targets)
        self._known: tuple[Part, ...] = ()

    def encode(self, identity: bytes, outputs: Mapping[str, Array]) -> list[Buffer]:
        """Return the parts of a response, the id last; large tensors are views of `outputs`.

        Args:
            identity: the id as a field of the message, tag and length included; b"" for none.
            outputs: arrays of the request's rows, by name.

        Raises:
            InvalidInput: an output does not fit into its shared memory.
            ResourceExhausted: shared memory has no pages left.
        """
        parts: list[Buffer] = []
        for target, dtype, shape, before in self._known:
            array = outputs[target.name]
            if array.shape != shape or array.dtype != dtype:
                parts = []
                break
            parts.append(before)
            if target.region is not None and target.part is not None:
                target.region.write(tensor_bytes(array), target.part.offset)
            else:
                parts.append(array.tobytes() if array.nbytes <= SMALL else tensor_bytes(array))
        parts = parts or self._make(outputs)
        parts.append(identity)
        return parts

    def _make(self, outputs: Mapping[str, Array]) -> list[Buffer]:
        parts = encode_response(self._echo, self._version, self.targets, outputs)
        self._known = prebuilt(self.targets, outputs, parts)
        return parts


def prebuilt(
    targets: Sequence[Target], outputs: Mapping[str, Array], parts: Sequence[Buffer]
) -> tuple[Part, ...]:
    """Keep what is the same in every response with such outputs; () if the elements decide.

    Args:
        targets: what was sent.
        outputs: what it was made of.
        parts: of the response: the header, then tag with length, and elements, of each output.
    """
    if any(target.classes or outputs[target.name].dtype.hasobject for target in targets):
        return ()
    header = [parts[0], *[b""] * (len(targets) - 1)]
    return tuple(
        Part(target, outputs[target.name].dtype, outputs[target.name].shape, bytes(first) + tag)
        for target, first, tag in zip(targets, header, map(bytes, parts[1::2]), strict=True)
    )
