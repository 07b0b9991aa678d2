"""Sends the answers that need no run of their own, and counts them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from inferd_server.cache.flight import Asker
from inferd_server.errors import EngineFailure, InferdError
from inferd_server.monitoring.series import HIT, MERGED, SHARED_HIT
from inferd_server.transport.call import Metadata
from inferd_server.transport.status import code_name

log = logging.getLogger(__name__)
KEY = "inferd-cache"
"""Trailing metadata that says why an answer needed no run."""
SERVED: Mapping[str, Metadata] = {kind: ((KEY, kind),) for kind in (HIT, SHARED_HIT, MERGED)}


class Answers:
    """Answers requests that were counted as admitted. Any thread may call, once for each."""

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        """Prepare.

        Args:
            clock: monotonic seconds.
            wall: seconds since the epoch.
        """
        self._clock = clock
        self._wall = wall

    def give(self, asker: Asker, value: bytes, kind: str) -> None:
        """Send a response.

        Args:
            asker: gets it with its own id.
            value: the response without an id.
            kind: how it was come by.
        """
        silence(asker)
        form, total = asker.form, self._clock() - asker.started
        # Counted first: who has the answer finds it in the statistics.
        form.statistics.hit(total, self._wall())
        form.series.cached(kind)
        form.series.answered("OK", total)
        try:
            asker.call.reply((value, asker.identity), SERVED[kind])
        except Exception:
            # No memory for the joined message, most likely; the call must not stay open.
            log.exception("a response could not be sent")
            asker.call.fail(EngineFailure())

    def refuse(self, asker: Asker, error: InferdError) -> None:
        """Send an error."""
        silence(asker)
        form, total = asker.form, self._clock() - asker.started
        form.statistics.failed(total)
        form.series.answered(code_name(error), total)
        asker.call.fail(error)

    def release(self, asker: Asker) -> None:
        """Count it as admitted no more: it is admitted anew."""
        silence(asker)
        asker.form.series.withdrawn()


def silence(asker: Asker) -> None:
    """Let its deadline ring no more."""
    if asker.alarm is not None:
        asker.alarm.cancel()
