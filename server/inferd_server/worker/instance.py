"""An instance: a thread that opens an engine, and runs batches on it or hands it to a host."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from inferd_engines.engine import Engine

from inferd_server.scheduler.queue import BatchQueue
from inferd_server.worker.inline import Guest, InlineLoop

log = logging.getLogger(__name__)


class Takes(Protocol):
    """Where decisions come from."""

    def take(self) -> Any:
        """Block for the next decision; None when there will be no more."""


@dataclass(frozen=True, slots=True)
class Work:
    """What an instance does once its engine is open."""

    queue: Takes
    run: Callable[[Any], None]
    host: InlineLoop | None = None
    """Runs the batches in the place of the instance's own thread."""
    loop: Callable[[], None] | None = None
    """Runs all batches until the queue ends, otherwise than one after the other."""


class Instance:
    """Owns one engine from opening to closing; one thread at a time uses it."""

    def __init__(
        self,
        name: str,
        open_engine: Callable[[], Engine],
        prepare: Callable[[Engine], Work],
        lost: Callable[[BaseException], None],
    ) -> None:
        """Prepare; nothing runs before `start`.

        Args:
            name: of the thread.
            open_engine: called on the thread.
            prepare: called on the thread with the engine; the instance is ready after it.
            lost: called on the thread if it ends by an error after it was ready.
        """
        self._open_engine = open_engine
        self._prepare = prepare
        self._lost = lost
        self._ready: Future[None] | None = Future()
        self._hosted: tuple[InlineLoop, Guest] | None = None
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)

    def start(self) -> Future[None]:
        """Start the thread; the future ends when it is ready, or with why it is not."""
        ready = self._ready
        assert ready is not None
        self._thread.start()
        return ready

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end of its work, after its queue was closed. True if it ended."""
        self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        return self._hosted is None or self._hosted[0].release(self._hosted[1], timeout)

    def _live(self) -> None:
        try:
            engine = self._open_engine()
        except BaseException as error:
            self._fail(error)
            return
        hosted = False
        try:
            hosted = self._serve(engine)
        finally:
            if not hosted:
                self._close(engine)

    def _close(self, engine: Engine) -> None:
        try:
            engine.close()
        except Exception:
            log.exception("an engine could not be closed")

    def _serve(self, engine: Engine) -> bool:
        """Run batches until the queue is closed; True if somebody else does so instead."""
        try:
            work = self._prepare(engine)
        except BaseException as error:
            self._fail(error)
            return False
        if work.host is not None:
            assert isinstance(work.queue, BatchQueue)
            guest = Guest(work.queue, work.run, lambda: self._close(engine), self._lost)
            self._hosted = work.host, guest
            work.host.host(guest)
        assert self._ready is not None
        self._ready.set_result(None)
        if work.host is None:
            self._run(work)
        return work.host is not None

    def _fail(self, error: BaseException) -> None:
        # Forgotten: the error refers to the frames that it passed, and these to the instance.
        ready, self._ready = self._ready, None
        assert ready is not None
        ready.set_exception(error)

    def _run(self, work: Work) -> None:
        try:
            if work.loop is not None:
                work.loop()
                return
            while (decision := work.queue.take()) is not None:
                work.run(decision)
        except BaseException as error:
            log.exception("an instance ended")
            self._lost(error)
