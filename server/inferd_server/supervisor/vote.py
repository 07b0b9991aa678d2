"""One load in all processes that hold the models: each serves what it opened, or none does."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from inferd_server.control.channel import PeerLost
from inferd_server.control.messages import Load
from inferd_server.errors import InferdError, ModelNotReady
from inferd_server.supervisor.spawn import Child


class Vote:
    """The processes of a load and how far each is. Any thread may call; every method blocks.

    The first process opens the model alone: what no process can load, or ends the one that tries,
    reaches no other.
    """

    def __init__(self, children: Sequence[Child]) -> None:
        """Begin; `children` are all that take part, one at least."""
        self._children = children
        self._opened: set[Child] = set()
        self._taking: set[Child] = set()
        self._ended: dict[Child, BaseException | None] = {}
        self._go = False
        self._refusal: BaseException | None = None
        self._changed = threading.Condition()

    def load(self, message: Load) -> None:
        """Have the model loaded, and return once it serves everywhere.

        Raises:
            InferdError: a process could not open it, or was lost meanwhile; nothing changed.
        """
        first, *others = self._children
        asked = self._ask([first], message)
        if self._all_opened([first]):
            asked += self._ask(others, message)
        self._decide(asked)
        with self._changed:
            self._changed.wait_for(lambda: all(child in self._ended for child in asked))
            errors = [self._ended[child] for child in asked]
        if self._refusal is not None:
            raise self._refusal
        # Who was lost after that begins anew with what the others have.
        left = [error for error in errors if error and not isinstance(error, PeerLost)]
        if left or all(errors):
            raise left[0] if left else next(error for error in errors if error is not None)

    def opened(self, child: Child) -> None:
        """Wait until every process has opened the model.

        Raises:
            ModelNotReady: one could not.
        """
        with self._changed:
            self._opened.add(child)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._go or self._refusal is not None)
            if not self._go:
                raise ModelNotReady(f"another process could not load it: {self._refusal}")

    def taking(self, child: Child) -> None:
        """Wait until every process takes requests for the model."""
        with self._changed:
            self._taking.add(child)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._taking | self._ended.keys() >= {*self._children})

    def _ask(self, children: Sequence[Child], message: Load) -> list[Child]:
        for child in children:
            child.channel.ask(message).add_done_callback(partial(self._end, child))
        return list(children)

    def _all_opened(self, children: Sequence[Child]) -> bool:
        """Wait until processes have opened the model, or one of them could not."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._refusal is not None or self._opened | self._ended.keys() >= {*children}
                )
            )
            return self._refusal is None

    def _decide(self, children: Sequence[Child]) -> None:
        agreed = self._all_opened(children)
        with self._changed:
            # One may have been lost since.
            self._go = agreed and self._refusal is None
            self._changed.notify_all()

    def _end(self, child: Child, future: Future[Any]) -> None:
        error = future.exception()
        with self._changed:
            self._ended[child] = error
            if error is not None and not self._go and self._refusal is None:
                lost = isinstance(error, PeerLost)
                self._refusal = error if lost or isinstance(error, InferdError) else None
            self._changed.notify_all()
