"""Compares answers to one and the same request; ids aside, they must be equal."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from inferd.oip.v2 import inference_pb2

# Answers that differ from the first in their id only; their bytes are compared first.
_KEPT = 1024


class Answers:
    """The first answer, and how many were `different`."""

    def __init__(self, *, stream: bool) -> None:
        self.different = 0
        self._stream = stream
        self._first: bytes | None = None
        self._plain = b""
        self._same: set[bytes] = set()

    def check(self, answer: bytes) -> None:
        """Compare one serialised response."""
        if answer == self._first or answer in self._same:
            return
        if self._first is None:
            self._first, self._plain = answer, self._without_id(answer)
        elif self._without_id(answer) != self._plain:
            self.different += 1
        elif len(self._same) < _KEPT:
            self._same.add(answer)

    def _without_id(self, answer: bytes) -> bytes:
        try:
            if self._stream:
                streamed = inference_pb2.ModelStreamInferResponse.FromString(answer)
                response = streamed.infer_response
            else:
                response = inference_pb2.ModelInferResponse.FromString(answer)
        except DecodeError:
            # Unlike anything that can be read.
            return b"undecodable"
        response.ClearField("id")
        return response.SerializeToString(deterministic=True)
