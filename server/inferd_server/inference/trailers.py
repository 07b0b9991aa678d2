"""Trailing metadata of answers: what the metadata of a call asks to be told."""

from __future__ import annotations

from collections.abc import Callable

from inferd_server.monitoring.phases import PHASES, Phases
from inferd_server.transport.call import Metadata

AGENT = "user-agent"
"""What every caller sends: who sends nothing else asks for nothing here."""
TIMING = "server-timing"
"""Asked for with the value "true", and told under the same name."""
LOAD = "endpoint-load-metrics-bin"
"""Source: gRFC A51."""


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


def server_timing(total: float, decode: float, phases: Phases) -> str:
    """Return the phases of a request, and its time, as milliseconds.

    Source: W3C Server Timing.
    """
    seconds = dict(zip(PHASES, phases.seconds(total, decode), strict=True))
    told = {**seconds, "total": total}
    return ", ".join(f"{name};dur={value * 1000:.6f}" for name, value in told.items())
