"""Calls that tell when they were answered, and that keep something from their caller."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from inferd.tensors import Buffer

from inferd_server.errors import InferdError, ModelNotFound
from inferd_server.transport.call import Call, Metadata
from inferd_server.transport.call_wrapper import CallWrapper


def nothing(_: InferdError | None) -> None:
    """Take an end that nobody waits for."""


class Counted(CallWrapper):
    """Passes everything on to a call, and calls back once, just before its answer leaves.

    The call back gets the error that is the answer; None for any other end.
    """

    __slots__ = ("_answered", "_claim")

    def __init__(self, call: Call, answered: Callable[[InferdError | None], None]) -> None:
        super().__init__(call)
        self._answered = answered
        self._claim = threading.Lock()

    def reply(self, parts: Sequence[Buffer], trailing: Metadata = ()) -> None:
        """Answer the call; counted no more before its caller can know."""
        self.over()
        self._call.reply(parts, trailing)

    def fail(self, error: InferdError) -> None:
        """Answer the call; counted no more before its caller can know."""
        self.over(error)
        self._call.fail(error)

    def over(self, error: InferdError | None = None) -> None:
        """Call back unless that was done."""
        if self._claim.acquire(blocking=False):
            self._answered(error)


class Discreet(Counted):
    """The same for a caller who may not read, and so is told no names of other models."""

    __slots__ = ()

    def fail(self, error: InferdError) -> None:
        """Answer the call, without what the caller may not know."""
        model = error.facts.get("model")
        if isinstance(error, ModelNotFound) and model is not None:
            error = ModelNotFound(f"model {model!r} is not known", facts=error.facts)
        super().fail(error)
