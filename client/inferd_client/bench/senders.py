"""Sends one pre-serialised request and says how it went, unary or on a stream."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Protocol

import grpc
from inferd.oip.v2 import inference_pb2

from inferd_client import errors
from inferd_client.bench.samples import OK
from inferd_client.errors import DeadlinePassed, InferdError, Unavailable
from inferd_client.final_status import FinalStatus
from inferd_client.security import Metadata

SERVICE = "/inference.GRPCInferenceService"

# The first field of a message comes first on the wire; absent, it is not there at all.
_ERROR_MESSAGE_TAG = b"\x0a"


class Sender(Protocol):
    """One place in flight."""

    async def send(self) -> str:
        """Send the request, wait for the answer and return its status code."""

    def close(self) -> None:
        """Give up what is open."""


class UnarySender:
    """A ModelInfer for each request; bytes pass through unparsed."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        request: bytes,
        timeout: float,
        metadata: Metadata = (),
    ) -> None:
        method: Any = channel.unary_unary(f"{SERVICE}/ModelInfer")
        self._method = partial(method, metadata=metadata or None)
        self._request = request
        self._timeout = timeout

    async def send(self) -> str:
        """Send the request, wait for the answer and return its status code."""
        try:
            await self._method(self._request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return OK

    def close(self) -> None:
        """Do nothing: no call outlives `send`."""


class StreamSender:
    """One ModelStreamInfer, opened anew after it broke."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        request: bytes,
        timeout: float,
        metadata: Metadata = (),
    ) -> None:
        method: Any = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")
        self._method = partial(method, metadata=metadata or None)
        self._request = request
        self._timeout = timeout
        self._call: Any = None
        self._final: FinalStatus | None = None

    async def send(self) -> str:
        """Send the request, wait for the answer and return its status code."""
        if self._call is None:
            self._call = self._method()
            self._final = FinalStatus(self._call)
        try:
            async with asyncio.timeout(self._timeout):
                code = await self._exchange()
        except TimeoutError:
            code = DeadlinePassed.code
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            code = self._ended()  # perhaps since the last answer
        if self._call.done() or code == DeadlinePassed.code:
            self.close()
        return code

    async def _exchange(self) -> str:
        await self._call.write(self._request)
        answer = await self._call.read()
        return self._ended() if answer is grpc.aio.EOF else code_of(answer)

    def _ended(self) -> str:
        error = self._final.error if self._final else None
        return error.code().name if error else Unavailable.code

    def close(self) -> None:
        """Give up the stream."""
        if self._call is not None:
            self._call.cancel()
            self._call = None


def is_error(answer: bytes) -> bool:
    """Tell by its first byte whether a ModelStreamInferResponse is an error."""
    return answer.startswith(_ERROR_MESSAGE_TAG)


def code_of(answer: bytes) -> str:
    """Return the status code of a serialised ModelStreamInferResponse, parsing only errors."""
    if not is_error(answer):
        return OK
    response = inference_pb2.ModelStreamInferResponse.FromString(answer).infer_response
    name = response.parameters["inferd_error"].string_param
    return errors.NAMES.get(name, InferdError).code
