"""Calls that are refused for who calls, how often, or a bound: all counted, and some logged."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

from inferd_server.errors import InferdError
from inferd_server.monitoring.bounded_log import BoundedLog
from inferd_server.security.permissions import METHODS, Permission
from inferd_server.transport.call import Caller, Refused
from inferd_server.transport.status import code_name

log = logging.getLogger(__name__)


BEFORE = frozenset(
    {
        *("COMPRESSION_NOT_TAKEN", "COMPRESSION_DAMAGED", "COMPRESSION_RATIO"),
        *("MESSAGE_BYTES", "REQUEST_BYTES", "IN_FLIGHT_BYTES"),
    }
)
"""Reasons of the transport, for a request that nobody else has seen."""
AFTER = frozenset({"MESSAGE_FIELDS", "UNSENT_BYTES"})
"""Reasons for one that is counted among the requests already."""


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

    def of_bounds(self, method: str) -> Refused:
        """Return what is told of the errors of a method, and counts those that name a bound."""
        return partial(self._bound, method)

    def __call__(self, method: str, caller: Caller, error: InferdError) -> None:
        """Count a call, and log it unless many like it were logged just now."""
        if METHODS.get(method) is Permission.INFER:
            self._counters.refused(None, code_name(error))
        self._tell(method, caller, error)

    def _bound(self, method: str, caller: Caller, error: InferdError) -> None:
        if error.reason in BEFORE:
            self(method, caller, error)
        elif error.reason in AFTER:
            self._tell(method, caller, error)

    def _tell(self, method: str, caller: Caller, error: InferdError) -> None:
        self._counters.refused_call(error.reason)
        where = {"reason": error.reason, "method": method, "peer": caller.peer}
        who = {"identity": error.facts.get("identity", "")}
        self._log(error.reason, logging.WARNING, "a call was refused", {**where, **who})
