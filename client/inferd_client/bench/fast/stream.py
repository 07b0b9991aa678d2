"""One ModelStreamInfer with a message outstanding for each place on it."""

from __future__ import annotations

import math

from google.protobuf.message import DecodeError
from inferd.oip.v2 import inference_pb2

from inferd_client.bench.fast.answers import Answers
from inferd_client.bench.fast.call import UNAVAILABLE
from inferd_client.bench.fast.connection import Connection
from inferd_client.bench.fast.frames import ProtocolError
from inferd_client.bench.fast.link import Link
from inferd_client.bench.fast.load import Load
from inferd_client.bench.fast.messages import MessageReader, everything, prefixed
from inferd_client.bench.samples import OK
from inferd_client.bench.senders import code_of, is_error
from inferd_client.errors import Cancelled, DeadlinePassed


class StreamPlace:
    """A place on a stream; `ident` is the id of its requests, empty if it is there alone."""

    __slots__ = ("_stream", "body", "due", "ident", "started")

    def __init__(self, stream: Stream, request: bytes, ident: str) -> None:
        self.due = 0.0
        self.started = math.inf
        self.ident = ident
        self.body = prefixed(_with_id(request, ident) if ident else request)
        self._stream = stream

    def send(self) -> None:
        """Send the request."""
        self._stream.send(self)

    def expire(self) -> None:
        """Give the request up."""
        self._stream.expire(self)


class Stream:
    """The call, opened when it is needed and anew after it broke."""

    def __init__(
        self, link: Link, load: Load, block: bytes, answers: Answers | None, *, alone: bool
    ) -> None:
        """Prepare.

        Args:
            link: opens the stream.
            load: gets the outcomes.
            block: header block of the call.
            answers: checks them; None if nobody does.
            alone: there is one place only, so that nobody looks into answers for an id.
        """
        self._link = link
        self._load = load
        self._block = block
        self._answers = answers
        self._reader = MessageReader(is_error if alone and answers is None else everything)
        self._out: dict[str, StreamPlace] = {}
        self._connection: Connection | None = None
        self._number = 0
        self._received = 0

    def send(self, place: StreamPlace) -> None:
        """Send the request of a place."""
        self._out[place.ident] = place
        if self._connection is not None:
            self._connection.outbox.message(self._number, place.body)
        elif len(self._out) == 1:
            self._link.submit(self)

    def begin(self, connection: Connection) -> None:
        """Open the stream on a connection that has room, and send what waits for it."""
        self._connection = connection
        self._received = 0
        self._number = connection.open(self._block, self)
        for place in self._out.values():
            connection.outbox.message(self._number, place.body)

    def data(self, data: bytes) -> None:
        """Take what arrived."""
        self._received += len(data)
        connection = self._connection
        if connection is not None and self._received >= connection.credit:
            connection.widen(self._number, self._received)
            self._received = 0
        for answer in self._reader.feed(data):
            self._answered(answer)

    def ended(self, code: str) -> None:
        """Fail what is still out; the next request opens the stream anew."""
        self._close()
        self._fail(UNAVAILABLE if code == OK else code)

    def unprocessed(self) -> None:
        """Open the stream elsewhere, and send everything once more."""
        self._close()
        if self._out:
            self._link.submit(self)

    def expire(self, place: StreamPlace) -> None:
        """Give a request up, and the stream with it: its answer might come at any time."""
        if self._connection is not None:
            self._connection.cancel(self._number)
        else:
            self._link.withdraw(self)
        self._close()
        del self._out[place.ident]
        others, self._out = self._out, {}
        self._load.settle(place, DeadlinePassed.code)
        for other in others.values():
            self._load.settle(other, Cancelled.code)

    def _answered(self, answer: bytes) -> None:
        code = code_of(answer)
        place = self._out.pop("", None) or self._by_id(answer)
        if place is None:
            # Nobody can tell whose answer it is, and no figure may be guessed.
            raise ProtocolError("an answer that no request waits for")
        if code == OK and self._answers is not None:
            self._answers.check(answer)
        self._load.settle(place, code)

    def _by_id(self, answer: bytes) -> StreamPlace | None:
        try:
            response = inference_pb2.ModelStreamInferResponse.FromString(answer)
        except DecodeError as error:
            raise ProtocolError("an answer cannot be read") from error
        return self._out.pop(response.infer_response.id, None)

    def _close(self) -> None:
        self._connection = None
        self._reader.clear()

    def _fail(self, code: str) -> None:
        out, self._out = self._out, {}
        for place in out.values():
            self._load.settle(place, code)


def _with_id(request: bytes, ident: str) -> bytes:
    message = inference_pb2.ModelInferRequest.FromString(request)
    message.id = ident
    return message.SerializeToString()
