"""A model that lost an engine is loaded anew, ever later, and a bounded number of times."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from inferd_seal.errors import KeyUnavailable

from inferd_server.errors import InferdError, NotFound, ShuttingDown
from inferd_server.models.layout import FILES_ABSENT
from inferd_server.models.version import Handle

log = logging.getLogger(__name__)
FIRST_S, LONGEST_S = 0.1, 30.0
LIMIT = 8
"""Losses in a row after which a model stays as it is."""
FORGIVEN_S = 300.0
"""Seconds without a loss after which those before are forgotten."""
PASSING = frozenset({FILES_ABSENT, KeyUnavailable.reason})
"""Reasons that may pass by themselves, so that a load is tried again."""
MOST_DOUBLED = 16
"""Times, so that the delay stays a number."""


def reload_delay(losses: int) -> float | None:
    """Return the seconds until a model is loaded anew; None to leave it.

    Args:
        losses: in a row, the last one among them.
    """
    if losses > LIMIT:
        return None
    return min(LONGEST_S, FIRST_S * 2.0 ** (losses - 1))


def retry_delay(attempts: int) -> float:
    """Return the seconds until what is missing is looked for again.

    Args:
        attempts: in a row, the last one among them.
    """
    return min(LONGEST_S, FIRST_S * 2.0 ** min(attempts - 1, MOST_DOUBLED))


class Recovery:
    """Loads what was lost. Any thread may call."""

    def __init__(
        self,
        load: Callable[[str], None],
        later: Callable[[float, Callable[[], None]], None],
        clock: Callable[[], float],
        gave_up: Callable[[str], None],
    ) -> None:
        """Keep how to load.

        Args:
            load: loads a model by name, unless it should serve no more; blocks.
            later: calls a function after some seconds, on another thread.
            clock: monotonic seconds.
            gave_up: called with the name of a model that is not loaded again.
        """
        self._gave_up = gave_up
        self._load = load
        self._later = later
        self._clock = clock
        self._losses: dict[str, tuple[int, float]] = {}
        self._missing: dict[str, int] = {}
        """Attempts in a row to load a model whose files are not there."""
        self._lock = threading.Lock()

    def lost(self, handle: Handle) -> None:
        """Load a model again soon, one of whose engines was lost."""
        self._again(handle.name)

    def missing(self, name: str) -> None:
        """Load a model again later whose files or key are not there, ever later, without an end.

        That is no loss: no other process would find more.
        """
        with self._lock:
            tries = self._missing[name] = self._missing.get(name, 0) + 1
        delay = retry_delay(tries)
        log.warning("loading again", extra={"model": name, "delay_s": delay})
        self._later(delay, lambda: self._reload(name))

    def _again(self, name: str) -> None:
        losses = self._count(name)
        delay = reload_delay(losses)
        if delay is None:
            log.error("not loaded again", extra={"model": name, "losses": losses})
            self._gave_up(name)
            return
        log.warning("loading again", extra={"model": name, "delay_s": delay})
        self._later(delay, lambda: self._reload(name))

    def _count(self, name: str) -> int:
        with self._lock:
            losses, last = self._losses.get(name, (0, 0.0))
            now = self._clock()
            losses = 1 if now - last > FORGIVEN_S else losses + 1
            self._losses[name] = losses, now
            return losses

    def _reload(self, name: str) -> None:
        try:
            self._load(name)
        except ShuttingDown:
            return
        except InferdError as error:
            log.error("a model failed to load again", extra={"model": name, "error": str(error)})
            if error.reason in PASSING or name in self._missing:
                self.missing(name)
            elif not isinstance(error, NotFound):
                self._again(name)
        else:
            with self._lock:
                self._missing.pop(name, None)
