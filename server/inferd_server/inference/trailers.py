"""Trailing metadata of answers, and the trace of a call: what its metadata asks to be told."""

from __future__ import annotations

import re
from collections.abc import Callable

from inferd_server.monitoring.phases import PHASES, Phases
from inferd_server.transport.call import Metadata

AGENT = "user-agent"
"""What every caller sends: who sends nothing else asks for nothing here."""
TRACE = "traceparent"
TIMING = "server-timing"
"""Asked for with the value "true", and told under the same name."""
LOAD = "endpoint-load-metrics-bin"
"""Source: gRFC A51."""
# Version, trace, span and flags. Source: W3C Trace Context.
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})")
SAMPLED = 1


class Trailers:
    """What answers tell besides. Any thread may call any method."""

    def __init__(self, load: Callable[[], bytes] | None = None) -> None:
        """Tell callers what they ask for.

        Args:
            load: returns what every answer tells of the server's load; None: nothing.
        """
        self._load = load
        self.usual = AGENT if load is None else ""
        """The one key of a call whose answer has no trailers."""

    def of(self, asked: Metadata, total: float, decode: float, phases: Phases) -> Metadata:
        """Return the trailing metadata of an answer.

        Args:
            asked: metadata of the call.
            total: seconds from its arrival to its answer.
            decode: those of them before it waited.
            phases: where it waited and ran.
        """
        told: list[tuple[str, str | bytes]] = []
        if (TIMING, "true") in asked:
            told.append((TIMING, server_timing(total, decode, phases)))
        if self._load is not None:
            told.append((LOAD, self._load()))
        return told


def trace_of(metadata: Metadata) -> str:
    """Return the trace that a call belongs to, if it is kept somewhere; else ""."""
    for key, value in metadata:
        if key == TRACE and isinstance(value, str):
            # Later versions may have more behind it.
            found = TRACEPARENT.match(value)
            return found[1] if found is not None and int(found[2], 16) & SAMPLED else ""
    return ""


def server_timing(total: float, decode: float, phases: Phases) -> str:
    """Return the phases of a request, and its time, as milliseconds.

    Source: W3C Server Timing.
    """
    seconds = dict(zip(PHASES, phases.seconds(total, decode), strict=True))
    told = {**seconds, "total": total}
    return ", ".join(f"{name};dur={value * 1000:.6f}" for name, value in told.items())
