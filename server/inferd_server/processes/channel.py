"""Messages between two processes of one server: told, or asked and answered."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from itertools import count
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, TypeAlias

from inferd_server.errors import InferdError, Unavailable
from inferd_server.processes.format import (
    MOST_BYTES,
    Answered,
    Asked,
    FormatError,
    Message,
    Told,
    pack,
    unpack,
)

log = logging.getLogger(__name__)
Latest: TypeAlias = Callable[[], object]


class PeerLost(Unavailable):
    """The process at the other end is gone, or does not answer."""


class Channel:
    """One end of a connection. Any thread may send, and never waits; one thread reads."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection
        self._numbers = count(1)
        self._open: dict[int, Future[Any]] = {}
        self._closed = False
        self._lock = threading.Lock()
        # A process that was stopped reads nothing: whoever sends must not stop with it.
        self._outbox: SimpleQueue[Message | Latest | None] = SimpleQueue()
        threading.Thread(target=self._send, name="control", daemon=True).start()

    def tell(self, body: object) -> None:
        """Send a message; nothing happens if the other end is gone."""
        self._outbox.put(Told(body))

    def tell_latest(self, make: Latest) -> None:
        """Send what a function returns once it is this message's turn; None: nothing is new.

        For what changes quickly: states in between need not be sent.
        """
        self._outbox.put(make)

    def ask(self, body: object) -> Future[Any]:
        """Send a question; the future fails with PeerLost if the other end goes."""
        future: Future[Any] = Future()
        with self._lock:
            number = next(self._numbers)
            self._open[number] = future
            closed = self._closed
        if closed:
            self._lose()
        self._outbox.put(Asked(number, body))
        return future

    def close(self) -> None:
        """End the connection, which the other end notices; what was sent before arrives."""
        self._outbox.put(None)

    def read(self, handle: Callable[[object], object]) -> None:
        """Hand over what arrives until the other end is gone.

        What is told is handled in order, here; a question by a thread of its own, because its
        answer may take long. What `handle` returns or raises is the answer. Who sends what is no
        message is not listened to any more, as if it were gone.
        """
        try:
            while True:
                self._received(receive(self._connection), handle)
        except (EOFError, OSError):
            self._lose()
        except FormatError as error:
            log.error("a process sent what is no message", extra={"error": str(error)})
            self._lose()

    def _received(self, message: Message, handle: Callable[[object], object]) -> None:
        if isinstance(message, Told):
            try:
                handle(message.body)
            except Exception:
                log.exception("a message could not be handled")
        elif isinstance(message, Asked):
            threading.Thread(
                target=self._answer, args=(message, handle), name="answer", daemon=True
            ).start()
        else:
            self._settle(message)

    def _answer(self, question: Asked, handle: Callable[[object], object]) -> None:
        try:
            answer = Answered(question.number, handle(question.body), None)
        except InferdError as error:
            answer = Answered(question.number, None, error)
        except Exception:
            log.exception("a question could not be answered")
            answer = Answered(question.number, None, Unavailable("see the log of the server"))
        self._outbox.put(answer)

    def _send(self) -> None:
        try:
            while (message := self._outbox.get()) is not None:
                if callable(message):
                    message = self._made(message)
                if message is not None:
                    self._connection.send_bytes(self._packed(message))
            shutdown(self._connection)
        except OSError:
            # The reading side sees it, too.
            self._lose()

    def _made(self, make: Latest) -> Message | None:
        try:
            body = make()
        except Exception:
            log.exception("a message could not be made")
            return None
        return None if body is None else Told(body)

    def _packed(self, message: Message) -> bytes:
        """Write a message; one that cannot be must not end the thread that sends all others."""
        try:
            return pack(message)
        except FormatError:
            log.exception("a message could not be sent")
        problem = Unavailable("see the log of the server")
        if isinstance(message, Asked):
            self._settle(Answered(message.number, None, problem))
        number = message.number if isinstance(message, Answered) else 0
        return pack(Answered(number, None, problem))

    def _settle(self, answer: Answered) -> None:
        with self._lock:
            future = self._open.pop(answer.number, None)
        if future is not None:
            settle(future, answer)

    def _lose(self) -> None:
        with self._lock:
            self._closed = True
            left = list(self._open.values())
            self._open.clear()
        for future in left:
            future.set_exception(PeerLost("a process of the server is gone; try again"))


def receive(connection: Connection[Any, Any]) -> Message:
    """Wait for the next message.

    Raises:
        FormatError: what came is none.
        EOFError: the other end is gone.
        OSError: likewise, or the message is too long.
    """
    return unpack(connection.recv_bytes(MOST_BYTES))


def shutdown(connection: Connection[Any, Any]) -> None:
    """End both directions at once, even while another thread reads."""
    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


def settle(future: Future[Any], answer: Answered) -> None:
    """Give a future its answer."""
    if answer.error is not None:
        future.set_exception(answer.error)
    else:
        future.set_result(answer.value)


def answers(futures: Sequence[Future[Any]], patience: float) -> list[Any]:
    """Wait for several answers; who is gone or slower than `patience` seconds is passed over.

    Raises:
        InferdError: that one of them answered.
    """
    done, _ = wait(futures, patience)
    return [future.result() for future in done if not isinstance(future.exception(), PeerLost)]
