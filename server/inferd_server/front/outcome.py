"""What happens when a job ends: the response, and the counters."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from inferd.tensors import Array, Buffer

from inferd_server.errors import EngineFailure, InferdError
from inferd_server.front.answer import Echoed, Target, encode_response
from inferd_server.monitoring.metrics import Metrics
from inferd_server.repository.handle import Handle
from inferd_server.scheduler.job import Phases
from inferd_server.transport.call import Call
from inferd_server.transport.status import code_name

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Where requests are counted, and the clocks."""

    metrics: Metrics
    clock: Callable[[], float]
    """Monotonic seconds."""
    wall: Callable[[], float]
    """Seconds since the epoch."""


class Answer:
    """What happens when a job ends: the response, and the counters."""

    def __init__(
        self,
        call: Call,
        request: Echoed,
        handle: Handle,
        targets: Sequence[Target],
        rows: int,
        started: float,
        telemetry: Telemetry,
    ) -> None:
        self._call = call
        self._request = request
        self._handle = handle
        self._targets = targets
        self._rows = rows
        self._started = started
        self._telemetry = telemetry

    def finish(self, outputs: Mapping[str, Array], phases: Phases) -> None:
        """Send the outputs; a response that cannot be made is an error of this job alone."""
        ran = self._telemetry.clock()
        try:
            parts = encode_response(self._request, self._handle.version, self._targets, outputs)
        except InferdError as error:
            self.fail(error)
            return
        except Exception:
            log.exception("a response could not be encoded")
            self.fail(EngineFailure())
            return
        now = self._telemetry.clock()
        wall = self._telemetry.wall()
        # Counted first: who has the answer finds it in the statistics.
        self._handle.statistics.succeeded(self._rows, now - self._started, now - ran, phases, wall)
        self._count("OK", now, phases)
        self._reply(parts)

    def fail(self, error: InferdError) -> None:
        """Send an error."""
        now = self._telemetry.clock()
        self._handle.statistics.failed(now - self._started)
        self._count(code_name(error), now, None)
        self._call.fail(error)

    def _reply(self, parts: Sequence[Buffer]) -> None:
        try:
            self._call.reply(parts)
        except Exception:
            # No memory for the joined message, most likely; the call must not stay open.
            log.exception("a response could not be sent")
            self._call.fail(EngineFailure())

    def _count(self, code: str, now: float, phases: Phases | None) -> None:
        self._telemetry.metrics.answered(
            self._handle.name, self._handle.version, code, now - self._started, phases
        )
