"""The asyncio client: `client.Client` with `await`."""
# The names of the protocol, and as many options as a call has:
# ruff: noqa: A002

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

from inferd_client import connection, feedback, operations, parts, service_config, signatures
from inferd_client.aio_exchange import exchange
from inferd_client.connection import DEFAULT_TIMEOUT, MAX_MESSAGE_BYTES, Metadata
from inferd_client.errors import (
    DeadlinePassed,
    InferdError,
    InvalidInput,
    PermissionDenied,
    Unavailable,
    Unimplemented,
)
from inferd_client.feedback import FeedbackOutcome, Labels
from inferd_client.frames import Frame
from inferd_client.information import (
    ModelConfig,
    ModelMetadata,
    ModelState,
    ModelStatistics,
    ServerMetadata,
    ServerStatus,
)
from inferd_client.ledger import StreamItem
from inferd_client.operations import Answer, Operation
from inferd_client.parameters import Parameters
from inferd_client.requests import Request, merge_inputs
from inferd_client.results import Result
from inferd_client.security import Tls, authorization
from inferd_client.signatures import Signatures


class AsyncClient:
    """Calls one server, from the event loop that runs when it is made.

    Arguments and methods are those of `Client`, where they are described in full. Every
    method raises an error of the tree in `errors`: Unavailable when nobody answers at the
    address, DeadlinePassed when the timeout passes, or what the server says.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        metadata: Metadata = (),
        wait_for_ready: bool = False,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        tls: Tls | None = None,
        token: str | None = None,
        token_in_the_clear: bool = False,
        retries: bool = True,
        check_health: bool = False,
    ) -> None:
        self.address = address
        shown = authorization(token, address, tls, in_the_clear=token_in_the_clear)
        self._options = connection.CallOptions(timeout, (*metadata, *shown), wait_for_ready)
        # A token in the clear is for the server alone.
        direct = bool(shown) and tls is None
        arguments = service_config.pair(
            max_message_bytes, retries=retries, check_health=check_health, direct=direct
        )
        self._channels = [connection.open_aio_channel(address, tls, given) for given in arguments]
        repeating, once = (connection.methods(channel) for channel in self._channels)
        self._methods = {True: repeating, False: once}
        self._closed = False
        self._signatures: Signatures = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls under way fail with Cancelled."""
        self._closed = True
        for channel in self._channels:
            await channel.close()

    async def infer(
        self,
        model: str,
        /,
        *,
        inputs: Mapping[str, Any] | Frame | None = None,
        version: str = "",
        outputs: Sequence[str] = (),
        id: str = "",
        parameters: Parameters | None = None,
        timeout: float | None = None,
        metadata: Metadata = (),
        cast: bool = False,
        split: bool = False,
        **tensors: Any,
    ) -> Result:
        """Run a model once; tensors come by keyword or in `inputs`, see `Request`.

        Where a tensor has no datatype of its own, the model is asked for its signature first,
        once for each client, within the same timeout. With `split`, rows beyond the model's
        maximum go in further calls, one after the other, and the outputs are joined.

        Raises:
            InvalidInput: a tensor cannot be sent, or is not what the model takes.
            InvalidResponse: the answer contradicts itself.
            InferdError: the call failed, or the client is closed (Cancelled).
        """
        named = merge_inputs(inputs, tensors)
        request = Request(model, named, version, outputs, id, parameters or {}, cast)
        end = time.monotonic() + self._options.patience(timeout)
        request = await self._typed(request, end - time.monotonic(), metadata)
        if not split:
            return await self._infer(request, end - time.monotonic(), metadata)
        asked = operations.config(model, version)
        config = await self._send(asked, end - time.monotonic(), metadata)
        requests = parts.split(request, config.max_batch_size)
        results = [await self._infer(each, end - time.monotonic(), metadata) for each in requests]
        return parts.join(results, requests)

    def stream(
        self,
        requests: Iterable[Request] | AsyncIterable[Request],
        *,
        max_in_flight: int = 64,
        timeout: float = math.inf,
        metadata: Metadata = (),
    ) -> AsyncIterator[StreamItem]:
        """Run many requests on one call and yield their answers in the order of arrival.

        A plain iterable must not block; see `Client.stream` for the rest.

        Raises:
            InferdError: the stream as a whole failed.
        """
        connection.require_usable(closed=self._closed, max_in_flight=max_in_flight)
        method = self._methods[True]["ModelStreamInfer"]
        arguments = self._options.arguments(timeout, metadata)
        return exchange(
            method(**arguments),
            requests,
            max_in_flight,
            self.address,
            lambda request: self._typed(request, self._options.timeout, metadata),
        )

    async def live(self, *, timeout: float | None = None) -> bool:
        """Return whether the server is able to answer."""
        return await self._send(operations.live(), timeout)

    async def ready(
        self, model: str | None = None, version: str = "", *, timeout: float | None = None
    ) -> bool:
        """Return whether a model, or without one the server, is ready."""
        return await self._send(operations.ready(model, version), timeout)

    async def wait_until_ready(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Return once the server is ready, or raise DeadlinePassed; waits for it to listen."""
        for left, pause in connection.looks(timeout, time.monotonic):
            with suppress(Unavailable, DeadlinePassed):
                if await self.ready(timeout=left):
                    return
            await asyncio.sleep(pause)

    async def server_metadata(self, *, timeout: float | None = None) -> ServerMetadata:
        """Return who the server is."""
        return await self._send(operations.server_metadata(), timeout)

    async def metadata(
        self, model: str, version: str = "", *, timeout: float | None = None
    ) -> ModelMetadata:
        """Return a model's signature."""
        return await self._send(operations.metadata(model, version), timeout)

    async def config(
        self, model: str, version: str = "", *, timeout: float | None = None
    ) -> ModelConfig:
        """Return how a model is served."""
        return await self._send(operations.config(model, version), timeout)

    async def statistics(
        self, model: str = "", version: str = "", *, timeout: float | None = None
    ) -> tuple[ModelStatistics, ...]:
        """Return the counters of one model, or of all."""
        return await self._send(operations.statistics(model, version), timeout)

    async def models(
        self, *, ready_only: bool = False, timeout: float | None = None
    ) -> tuple[ModelState, ...]:
        """Return every model version in the repository with its state."""
        return await self._send(operations.models(ready_only=ready_only), timeout)

    async def load(self, model: str, *, timeout: float | None = None) -> None:
        """Load a model, or load it anew, and return when that is done."""
        await self._send(operations.load(model), timeout)

    async def unload(self, model: str, *, timeout: float | None = None) -> None:
        """Unload a model."""
        await self._send(operations.unload(model), timeout)

    async def status(self, *, timeout: float | None = None) -> ServerStatus:
        """Return which engine serves each model version, and why.

        Raises:
            Unimplemented: the server is not inferd.
        """
        return await self._send(operations.status(), timeout)

    async def feedback(self, token: str, label: Labels, *, timeout: float | None = None) -> int:
        """Tell what was true of an answer, and return how many of its rows count.

        Raises:
            FeedbackRefused: it does not count; `details["reason"]` says why.
        """
        return await self._send(feedback.one(token, label), timeout)

    async def feedback_many(
        self, pairs: Iterable[tuple[str, Labels]], *, timeout: float | None = None
    ) -> tuple[FeedbackOutcome, ...]:
        """Tell what was true of several answers; say of each token what became of it."""
        return await self._send(feedback.many(pairs), timeout)

    async def drift(
        self, model: str = "", *, version: str = "", timeout: float | None = None
    ) -> list[Any]:
        """Return how requests differ from references, as `inferd drift --json` prints it.

        Raises:
            Unimplemented: the server is not inferd.
        """
        return await self._send(operations.drift(model, version), timeout)

    async def _infer(self, request: Request, timeout: float, metadata: Metadata) -> Result:
        operation = operations.infer(request)
        try:
            return await self._send(operation, timeout, metadata)
        except InvalidInput as error:
            raise await self._explained(error, request, metadata) from error

    async def _typed(self, request: Request, timeout: float, metadata: Metadata) -> Request:
        if not signatures.wants(request):
            return request
        return signatures.typed(request, await self._signature(request, timeout, metadata))

    async def _signature(
        self, request: Request, timeout: float, metadata: Metadata
    ) -> ModelMetadata | None:
        key = request.model, request.version
        if key not in self._signatures:
            signature: ModelMetadata | None = None
            with suppress(Unimplemented, PermissionDenied):
                signature = await self._send(operations.metadata(*key), timeout, metadata)
            self._signatures[key] = signature
        return self._signatures[key]

    async def _explained(
        self, error: InvalidInput, request: Request, metadata: Metadata
    ) -> InvalidInput:
        # The model may have been replaced by one that takes something else.
        self._signatures.pop((request.model, request.version), None)
        if not signatures.is_refused_for_datatype(request, error.message):
            return error
        with suppress(InferdError):
            signature = await self._signature(request, self._options.timeout, metadata)
            cure = signatures.cure(request, signature)
            return InvalidInput(f"{error.message}{cure}", code=error.code, details=error.details)
        return error

    async def _send(
        self, operation: Operation[Answer], timeout: float | None, metadata: Metadata = ()
    ) -> Answer:
        connection.require_usable(closed=self._closed)
        arguments = self._options.arguments(timeout, metadata)
        with connection.translated_await(self.address):
            message = await self._methods[operation.repeatable][operation.method](
                operation.message, **arguments
            )
        return operation.read(message)
