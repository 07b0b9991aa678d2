"""ModelStreamInfer: every message of the stream is handled as a call of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from inferd.oip.v2.inference_pb2 import (
    InferParameter,
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)
from inferd.protobuf import field_tag, varint
from inferd.tensors import Buffer

from inferd_server.errors import EngineFailure, InferdError, InvalidInput, ShuttingDown
from inferd_server.inference.wire import parse
from inferd_server.transport.call import Call, Metadata, Receiver, Refused, Stream, ignore
from inferd_server.transport.status import milliseconds, reason, sentence

log = logging.getLogger(__name__)
RESPONSE_TAG = field_tag(ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER)
ERROR_PARAMETER = "inferd_error"
REASON_PARAMETER = "inferd_reason"
RETRY_PARAMETER = "inferd_retry_after_ms"
"""What trailing metadata tell of an error of a unary call, which messages of a stream have not."""
ORDER_KEY = "inferd-stream-order"
"""Metadata of a stream: in which order its answers leave."""
ORDERS = BY_REQUEST, BY_COMPLETION = "request", "completion"
GRPC_ERROR_KEY = "triton_grpc_error"
"""Metadata of a stream: "true" ends it with the status of the first error, as Triton has it."""
# Callers of Triton read a stream until this says that a request has no more answers.
FINAL_PARAMETER = "triton_final_response"
FINAL = ModelInferResponse(
    parameters={FINAL_PARAMETER: InferParameter(bool_param=True)}
).SerializeToString()


class StreamInfer:
    """Handler of ModelStreamInfer."""

    def __init__(self, infer: Callable[[Call], None], refused: Refused = ignore) -> None:
        """Hand requests to `infer`; `refused` is told of errors that have a reason."""
        self._infer = infer
        self._refused = refused

    def __call__(self, stream: Stream) -> Receiver:
        """Take a new stream."""
        given = dict(stream.metadata)
        order = text_of(given.get(ORDER_KEY, BY_REQUEST))
        if order not in ORDERS:
            known = " or ".join(map(repr, ORDERS))
            text = f"metadata {ORDER_KEY} is {order!r}; {known} was expected"
            stream.fail(InvalidInput(text))
            return RefusedStream()
        ends_with_errors = text_of(given.get(GRPC_ERROR_KEY, "")).lower() == "true"
        return InferReceiver(
            stream,
            self._infer,
            ordered=order == BY_REQUEST,
            ends_with_errors=ends_with_errors,
            refused=self._refused,
        )


class RefusedStream:
    """Receives the messages of a stream that was refused, and passes them over."""

    def message(self, data: bytes) -> None:
        """Pass it over."""

    def half_closed(self) -> None:
        """Do nothing."""

    def drain(self) -> None:
        """Do nothing: the stream has ended."""

    def cancel(self) -> None:
        """Nothing is held."""


class InferReceiver:
    """The messages of one stream; their answers leave in the order of the requests, or as ready.

    Whose request is the first without an answer may send; the others leave theirs to it.
    """

    def __init__(
        self,
        stream: Stream,
        infer: Callable[[Call], None],
        *,
        ordered: bool = True,
        ends_with_errors: bool = False,
        refused: Refused = ignore,
    ) -> None:
        """Take no message yet.

        Args:
            stream: of the caller.
            infer: admits one request.
            ordered: whether answers leave in the order of the requests.
            ends_with_errors: whether the stream ends with the status of the first error.
            refused: told of errors that have a reason.
        """
        self._stream = stream
        self._infer = infer
        self._ordered = ordered
        self._ends_with_errors = ends_with_errors
        self._refused = refused
        # In the order of arrival.
        self._pending: dict[int, StreamedCall] = {}
        self._half_closed = False
        self._draining = False
        self._over = False
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
        """Cancel every request that has no answer yet, and drop answers that wait for theirs."""
        with self._lock:
            self._over = True
            pending = list(self._pending.values())
            waiting = [call for call in pending if call.answer is not None]
            for call in waiting:
                self._take(call)
        for call in pending:
            call.cancel()

    def _answered(self, call: StreamedCall, answer: StreamAnswer) -> None:
        """Send an answer, and those that waited for it, unless it has to wait itself."""
        if answer.error is not None:
            self._tell(call, answer.error)
        if self._ordered and self._waits(call, answer):
            return
        current, following = call, answer
        while True:
            self._send(following)
            with self._lock:
                self._pending.pop(id(current), None)
                over = not self._pending and (self._half_closed or self._draining)
                first = next(iter(self._pending.values()), None)
                kept = None if first is None else self._take(first)
                if first is None or kept is None:
                    break
                current, following = first, kept
        if over:
            self._end_if_over()

    def _waits(self, call: StreamedCall, answer: StreamAnswer) -> bool:
        """Leave an answer to the first request without one; False if that is its own."""
        with self._lock:
            if self._over or next(iter(self._pending)) == id(call):
                return self._over
        kept = self._kept(call, answer)
        with self._lock:
            if self._over or next(iter(self._pending)) == id(call):
                self._stream.unsent.unqueue(kept.queued)
                return self._over
            call.answer = kept
        return True

    def _kept(self, call: StreamedCall, answer: StreamAnswer) -> StreamAnswer:
        """Return what waits: a copy, since the memory of its outputs is somebody else's by then.

        One that finds no room is dropped, and the error that says so waits in its place.
        """
        if answer.error is not None:
            return answer
        unsent, size = self._stream.unsent, sum(map(len, answer.parts))
        if unsent.queue(size):
            return StreamAnswer((b"".join(answer.parts),), queued=size)
        error = unsent.refusal(size)
        self._tell(call, error)
        return call.failure(error)

    def _take(self, call: StreamedCall) -> StreamAnswer | None:
        """Return the answer of a call that waits no longer; None if there is none yet."""
        answer, call.answer = call.answer, None
        if answer is not None:
            self._stream.unsent.unqueue(answer.queued)
        return answer

    def _tell(self, call: StreamedCall, error: InferdError) -> None:
        # Of an error that ends the stream the transport tells.
        if error.reason and not self._ends_with_errors:
            self._refused(call, error)

    def _send(self, answer: StreamAnswer) -> None:
        try:
            if answer.error is not None and self._ends_with_errors:
                self._stream.fail(answer.error)
            else:
                self._stream.send(answer.parts)
        except Exception:
            # No memory for the joined message, most likely; the next answer is none for this one.
            log.exception("an answer could not be sent")
            self._stream.fail(EngineFailure())

    def _end_if_over(self) -> None:
        with self._lock:
            pending, finished, draining = self._pending, self._half_closed, self._draining
            if pending or not (finished or draining):
                return
        if finished:
            self._stream.finish()
        else:
            self._stream.fail(ShuttingDown("the server stops, and every request has its answer"))


class StreamAnswer(NamedTuple):
    """The answer to one request of a stream: a message, and the error that it tells of."""

    parts: Sequence[Buffer]
    error: InferdError | None = None
    queued: int = 0
    """Bytes that count while it waits for its turn."""


class StreamedCall:
    """One request of a stream, as a call."""

    __slots__ = (
        "_answered", "_claim", "_lock", "_on_cancel", "_stream", "answer", "cancelled", "request",
    )  # fmt: skip

    def __init__(
        self,
        stream: Stream,
        request: bytes,
        answered: Callable[[StreamedCall, StreamAnswer], None],
        lock: threading.Lock,
    ) -> None:
        """Take a message.

        Args:
            stream: it came on.
            request: the message.
            answered: sends the answer.
            lock: guards the callback when the stream ends; calls may share it.
        """
        self.request = request
        self.cancelled = False
        self.answer: StreamAnswer | None = None
        """While it waits for those of earlier requests."""
        self._stream = stream
        self._answered = answered
        self._lock = lock
        self._on_cancel: Callable[[], None] | None = None
        self._claim = threading.Lock()

    @property
    def stream(self) -> object:
        """The stream that this is a message of."""
        return self._stream

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
        elif self._claim.locked():
            # Answered since: nobody else would forget it.
            self._on_cancel = None

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
            self._answered(self, StreamAnswer((RESPONSE_TAG, size, *parts, FINAL)))
            self.request = b""

    def fail(self, error: InferdError) -> None:
        """Answer with a message that tells the error and the id of its request."""
        if self._claim.acquire(blocking=False):
            self._on_cancel = None
            answer = self.failure(error)
            self.request = b""
            self._answered(self, answer)

    def failure(self, error: InferdError) -> StreamAnswer:
        """Return the message that tells an error and the id of this request."""
        answer = ModelStreamInferResponse(
            error_message=sentence(error), infer_response=error_response(self.request, error)
        )
        return StreamAnswer((answer.SerializeToString(),), error)


def error_response(request: bytes, error: InferdError) -> ModelInferResponse:
    """Return the empty response that tells which request failed, why, and when to try again."""
    try:
        parsed, _ = parse(request)
    except InvalidInput:
        parsed = ModelInferRequest()
    response = ModelInferResponse(
        model_name=parsed.model_name, model_version=parsed.model_version, id=parsed.id
    )
    response.parameters[ERROR_PARAMETER].string_param = type(error).__name__
    response.parameters[REASON_PARAMETER].string_param = reason(error)
    if error.retry_after is not None:
        response.parameters[RETRY_PARAMETER].int64_param = milliseconds(error.retry_after)
    response.parameters[FINAL_PARAMETER].bool_param = True
    return response


def text_of(value: str | bytes) -> str:
    """Return a metadata value as text."""
    return value if isinstance(value, str) else value.decode(errors="backslashreplace")
