"""ModelStreamInfer: every message of the stream is handled as a call of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from inferd.oip.v2.inference_pb2 import (
    InferParameter,
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)
from inferd.tensors import Buffer

from inferd_server.errors import InferdError, InvalidInput, ShuttingDown
from inferd_server.front.wire import parse, varint
from inferd_server.transport.call import Call, Metadata, Receiver, Stream
from inferd_server.transport.status import sentence

RESPONSE_TAG = varint(ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER << 3 | 2)
ERROR_PARAMETER = "inferd_error"
# Callers of Triton read a stream until this says that a request has no more answers.
FINAL_PARAMETER = "triton_final_response"
FINAL = ModelInferResponse(
    parameters={FINAL_PARAMETER: InferParameter(bool_param=True)}
).SerializeToString()


class StreamInfer:
    """Handler of ModelStreamInfer."""

    def __init__(self, infer: Callable[[Call], None]) -> None:
        self._infer = infer

    def __call__(self, stream: Stream) -> Receiver:
        """Take a new stream."""
        return InferReceiver(stream, self._infer)


class InferReceiver:
    """The messages of one stream. Answers leave in the order of completion."""

    def __init__(self, stream: Stream, infer: Callable[[Call], None]) -> None:
        self._stream = stream
        self._infer = infer
        self._pending: dict[int, StreamedCall] = {}
        self._half_closed = False
        self._draining = False
        self._lock = threading.Lock()

    def message(self, data: bytes) -> None:
        """Handle one request."""
        call = StreamedCall(self._stream, data, self._answered, self._lock)
        with self._lock:
            refused = self._draining
            self._pending[id(call)] = call
        if refused:
            call.fail(ShuttingDown("the server takes no more requests"))
        else:
            self._infer(call)

    def half_closed(self) -> None:
        """Finish once everything is answered."""
        with self._lock:
            self._half_closed = True
        self._end_if_over()

    def drain(self) -> None:
        """Answer what is pending, and end; the caller may send the rest elsewhere."""
        with self._lock:
            self._draining = True
        self._end_if_over()

    def cancel(self) -> None:
        """Cancel every request that has no answer yet."""
        with self._lock:
            pending = list(self._pending.values())
        for call in pending:
            call.cancel()

    def _answered(self, call: StreamedCall) -> None:
        with self._lock:
            self._pending.pop(id(call), None)
            over = not self._pending and (self._half_closed or self._draining)
        if over:
            self._end_if_over()

    def _end_if_over(self) -> None:
        with self._lock:
            pending, finished, draining = self._pending, self._half_closed, self._draining
            if pending or not (finished or draining):
                return
        if finished:
            self._stream.finish()
        else:
            self._stream.fail(ShuttingDown("the server stops, and every request has its answer"))


class StreamedCall:
    """One request of a stream, as a call."""

    __slots__ = (
        "_answered", "_claim", "_lock", "_on_cancel", "_stream", "cancelled", "request",
    )  # fmt: skip

    def __init__(
        self,
        stream: Stream,
        request: bytes,
        answered: Callable[[StreamedCall], None],
        lock: threading.Lock,
    ) -> None:
        """Take a message.

        Args:
            stream: it came on.
            request: the message.
            answered: told after the answer was sent.
            lock: guards the callback when the stream ends; calls may share it.
        """
        self.request = request
        self.cancelled = False
        self._stream = stream
        self._answered = answered
        self._lock = lock
        self._on_cancel: Callable[[], None] | None = None
        self._claim = threading.Lock()

    @property
    def metadata(self) -> Metadata:
        """Of the stream."""
        return self._stream.metadata

    @property
    def peer(self) -> str:
        """Of the stream."""
        return self._stream.peer

    @property
    def certificate_names(self) -> Sequence[str]:
        """Of the stream."""
        return self._stream.certificate_names

    @property
    def deadline(self) -> float | None:
        """Of the stream."""
        return self._stream.deadline

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back once if the stream ends before the answer; at once if it has."""
        # Whichever of this and `cancel` comes second sees what the first one set, and the lock
        # decides who calls back.
        self._on_cancel = callback
        if self.cancelled:
            self._call_back()

    def cancel(self) -> None:
        """The stream ended."""
        self.cancelled = True
        self._call_back()

    def _call_back(self) -> None:
        with self._lock:
            callback, self._on_cancel = self._on_cancel, None
        if callback is not None:
            callback()

    def send_initial_metadata(self, metadata: Metadata) -> None:
        """Do nothing: a message of a stream has no metadata."""

    def reply(self, parts: Sequence[Buffer], trailing: Metadata = ()) -> None:  # noqa: ARG002
        """Send the response inside a stream response, which has no place for metadata."""
        if self._claim.acquire(blocking=False):
            # It refers to this call: both would stay until the next garbage collection.
            self._on_cancel = None
            # Fields that follow a message are merged into it.
            size = varint(sum(map(len, parts)) + len(FINAL))
            self._stream.send((RESPONSE_TAG, size, *parts, FINAL))
            self.request = b""
            self._answered(self)

    def fail(self, error: InferdError) -> None:
        """Send the error as a message, with the id of its request; the stream goes on."""
        if self._claim.acquire(blocking=False):
            self._on_cancel = None
            answer = ModelStreamInferResponse(
                error_message=sentence(error), infer_response=error_response(self.request, error)
            )
            self._stream.send((answer.SerializeToString(),))
            self.request = b""
            self._answered(self)


def error_response(request: bytes, error: InferdError) -> ModelInferResponse:
    """Return the empty response that tells which request failed, and the error's class."""
    try:
        parsed, _ = parse(request)
    except InvalidInput:
        parsed = ModelInferRequest()
    response = ModelInferResponse(
        model_name=parsed.model_name, model_version=parsed.model_version, id=parsed.id
    )
    response.parameters[ERROR_PARAMETER].string_param = type(error).__name__
    response.parameters[FINAL_PARAMETER].bool_param = True
    return response
