"""An instance: a thread that opens an engine, and runs batches on it or hands it to a host."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from inferd_engines.engine import Engine

from inferd_server.batching.decision import Decision
from inferd_server.batching.fair_share import Turn
from inferd_server.batching.fatal import End, go_on, is_fatal
from inferd_server.batching.inline import Guest, InlineLoop
from inferd_server.batching.queue import BatchQueue

log = logging.getLogger(__name__)


IDLE_S = 1.0
"""Seconds without a request after which a thread ends that an engine can do without."""


@dataclass(frozen=True, slots=True)
class Work:
    """What an instance does once its engine is open."""

    queue: BatchQueue[Any]
    run: Callable[[Decision[Any]], None]
    host: InlineLoop | None = None
    """Runs the batches in the place of the instance's own thread."""
    loop: Callable[[], None] | None = None
    """Runs all batches until the queue ends, otherwise than one after the other."""
    turn: Turn | None = None
    """Taken for each run; None: all engines may run at a time."""
    parks: bool = False
    """The engine may be used by one thread after another: none waits where nothing is to do."""


class Instance:
    """Owns one engine from opening to closing; one thread at a time uses it.

    The thread that opened it, unless its work parks: then a thread ends when there is nothing to
    do, and the next request starts another one.
    """

    def __init__(
        self,
        name: str,
        open_engine: Callable[[], Engine],
        prepare: Callable[[Engine], Work],
        lost: Callable[[BaseException], None],
        end: End = go_on,
    ) -> None:
        """Prepare; nothing runs before `start`.

        Args:
            name: of the thread.
            open_engine: called on the thread.
            prepare: called on the thread with the engine; the instance is ready after it.
            lost: called on the thread if it ends by an error after it was ready.
            end: called if the engine fails for good before it is ready.
        """
        self._name = name
        self._open_engine = open_engine
        self._prepare = prepare
        self._lost = lost
        self._end = end
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
        stays = False
        try:
            stays = self._serve(engine)
        finally:
            if not stays:
                self._close(engine)

    def _close(self, engine: Engine) -> None:
        try:
            engine.close()
        except Exception:
            log.exception("an engine could not be closed")

    def _serve(self, engine: Engine) -> bool:
        """Run batches until the queue is closed; True if somebody else goes on with it."""
        try:
            work = self._prepare(engine)
        except BaseException as error:
            self._fail(error)
            return False
        if work.host is not None:
            guest = Guest(work.queue, work.run, lambda: self._close(engine), self._lost)
            self._hosted = work.host, guest
            work.host.host(guest)
        assert self._ready is not None
        self._ready.set_result(None)
        return work.host is not None or self._run(work, engine)

    def _fail(self, error: BaseException) -> None:
        if is_fatal(error):
            self._end(error)
        # Forgotten: the error refers to the frames that it passed, and these to the instance.
        ready, self._ready = self._ready, None
        assert ready is not None
        ready.set_exception(error)

    def _run(self, work: Work, engine: Engine) -> bool:
        """Run batches; True if the thread ends before the queue does, to be followed by another."""
        patience = IDLE_S if work.parks else None
        try:
            if work.loop is not None:
                work.loop()
                return False
            while (decision := work.queue.take(patience, work.turn)) is not None:
                idle = work.parks and not (decision.run or decision.drop)
                if not idle:
                    work.run(decision)
                elif work.queue.park(lambda: self._resume(work, engine)):
                    return True
        except BaseException as error:
            log.exception("an instance ended")
            self._lost(error)
        finally:
            if work.turn is not None:
                work.turn.let_go()
        return False

    def _resume(self, work: Work, engine: Engine) -> None:
        """Go on with a thread of its own."""
        self._thread = threading.Thread(
            target=self._go_on, args=(work, engine), name=self._name, daemon=True
        )
        self._thread.start()

    def _go_on(self, work: Work, engine: Engine) -> None:
        if not self._run(work, engine):
            self._close(engine)
