"""Calls that are refused for who calls, or how often: counted all, and some of them logged."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from inferd_server.errors import InferdError
from inferd_server.monitoring.bounded_log import BoundedLog
from inferd_server.security.permissions import METHODS, Permission
from inferd_server.transport.call import Caller
from inferd_server.transport.status import code_name

log = logging.getLogger(__name__)


class Counters(Protocol):
    """Where refusals are counted."""

    def refused(self, model: tuple[str, int] | None, code: str) -> None:
        """Count a request for inference that was never admitted."""

    def refused_call(self, reason: str) -> None:
        """Count a call of any method."""


class Refusals:
    """Counts by reason, and logs a few of each in a while. Any thread may call it."""

    def __init__(self, counters: Counters, clock: Callable[[], float]) -> None:
        """Begin with none; `clock` is monotonic seconds."""
        self._counters = counters
        self._log = BoundedLog(log, clock)

    def __call__(self, method: str, caller: Caller, error: InferdError) -> None:
        """Count a call, and log it unless many like it were logged just now."""
        self._counters.refused_call(error.reason)
        if METHODS.get(method) is Permission.INFER:
            self._counters.refused(None, code_name(error))
        where = {"reason": error.reason, "method": method, "peer": caller.peer}
        who = {"identity": error.facts.get("identity", "")}
        self._log(error.reason, logging.WARNING, "a call was refused", {**where, **who})
