"""Answers that take long to write are written on a thread of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from inferd.tensors import Array

from inferd_server.control.blocking import BlockingThread
from inferd_server.errors import MemoryBudgetExceeded
from inferd_server.front.answer import Target
from inferd_server.front.classification import takes_long
from inferd_server.front.outcome import Answer
from inferd_server.scheduler.job import Phases

MOST_BYTES = 256 * 2**20
"""Of outputs that wait to be written."""


class Formatting:
    """A thread that writes answers, begun when there is one. Any thread may call."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        """Wait for nothing yet.

        Args:
            most: bytes of outputs that may wait.
        """
        self._most = most
        self._held = 0
        self._thread: BlockingThread | None = None
        self._lock = threading.Lock()

    def submit(self, nbytes: int, write: Callable[[], None]) -> None:
        """Write an answer soon.

        Args:
            nbytes: of its outputs.
            write: must not raise.

        Raises:
            MemoryBudgetExceeded: too much waits already.
        """
        with self._lock:
            if self._held and self._held + nbytes > self._most:
                raise MemoryBudgetExceeded(
                    f"{self._held} bytes of outputs wait to be classified; {self._most} may"
                )
            self._held += nbytes
            if self._thread is None:
                self._thread = BlockingThread("formatting")
                self._thread.start()
            self._thread.submit(partial(self._write, nbytes, write))

    def _write(self, nbytes: int, write: Callable[[], None]) -> None:
        try:
            write()
        finally:
            with self._lock:
                self._held -= nbytes


class ClassifiedAnswer(Answer):
    """The answer to a request that asks for classes."""

    __slots__ = ("_formatting", "_targets")

    def __init__(
        self, formatting: Formatting, targets: Sequence[Target], *arguments: Any, **named: Any
    ) -> None:
        """Prepare.

        Args:
            formatting: writes what takes long.
            targets: what to send.
            arguments: as of any answer.
            named: the same.
        """
        super().__init__(*arguments, **named)
        self._formatting = formatting
        self._targets = targets

    def finish(self, outputs: Mapping[str, Array], phases: Phases) -> None:
        """Send the outputs, from another thread where that takes long."""
        if not any(
            takes_long(outputs[target.name], target.classes, batched=target.batched)
            for target in self._targets
            if target.classes
        ):
            super().finish(outputs, phases)
            return
        # Copies: the memory of outputs is used again after this.
        kept = {target.name: outputs[target.name].copy() for target in self._targets}
        nbytes = sum(array.nbytes for array in kept.values())
        try:
            self._formatting.submit(nbytes, partial(super().finish, kept, phases))
        except MemoryBudgetExceeded as error:
            self.fail(error)
