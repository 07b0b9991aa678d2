"""Load reports for balancers: how busy the server is, with every answer or out of band.

Source: gRFC A51 and A58, xds/service/orca/v3/orca.proto.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from inferd.orca.v3.load_report_pb2 import OrcaLoadReport
from inferd.orca.v3.service_pb2 import OrcaLoadReportRequest

from inferd_server.errors import InferdError, InvalidInput, ShuttingDown
from inferd_server.monitoring.busy import WINDOW_S
from inferd_server.rpc.handlers import parse_message
from inferd_server.transport.call import Receiver, Stream

TICK_S = 1.0
"""Seconds that a report is true for, and the least between two out of band."""


@dataclass(frozen=True, slots=True)
class ServerLoad:
    """How loaded a server is."""

    busy: float
    """In 0..1."""
    answers: int
    """So far."""
    errors: int
    """Of them."""
    waiting: Mapping[str, float]
    """What waits, by what it is."""


class LoadReports:
    """Looks at the load every second, once anybody wants to know. Any thread may call."""

    def __init__(self, read: Callable[[], ServerLoad], clock: Callable[[], float]) -> None:
        """Prepare.

        Args:
            read: returns the load of now.
            clock: monotonic seconds.
        """
        self._read = read
        self._clock = clock
        # What was seen, and when. Balancers divide the rate by how busy the server is: were it
        # of a shorter time, a server with less to do than before would seem slow.
        self._seen: deque[tuple[ServerLoad, float]] = deque()
        self._report = b""
        self._watchers: dict[LoadWatch, None] = {}
        self._thread = threading.Thread(target=self._live, name="load reports", daemon=True)
        self._begun = False
        self._ended = threading.Event()
        self._lock = threading.Lock()

    def latest(self) -> bytes:
        """Return the report of this second, for the trailers of an answer."""
        self._begin()
        return self._report

    def watch(self, stream: Stream) -> Receiver:
        """Handle a StreamCoreMetrics call."""
        return LoadWatch(self, stream, self._clock)

    def join(self, watch: LoadWatch) -> None:
        """Send reports from now on."""
        self._begin()
        with self._lock:
            self._watchers[watch] = None
            watch.tell(self._report)

    def leave(self, watch: LoadWatch) -> None:
        """Send no more."""
        with self._lock:
            self._watchers.pop(watch, None)

    def look(self) -> None:
        """Make the report of this second, and send it to those who wait for one."""
        load, now = self._read(), self._clock()
        with self._lock:
            self._seen.append((load, now))
            while self._seen[0][1] < now - WINDOW_S:
                self._seen.popleft()
            before, since = self._seen[0]
            self._report = report(load, before, max(now - since, 1e-9))
            for watch in self._watchers:
                if now >= watch.due:
                    watch.tell(self._report)

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()

    def _begin(self) -> None:
        """Look from now on."""
        if not self._begun:
            with self._lock:
                begins, self._begun = not self._begun, True
            if begins:
                self.look()
                self._thread.start()

    def _live(self) -> None:
        while not self._ended.wait(TICK_S):
            self.look()


class LoadWatch:
    """One StreamCoreMetrics call."""

    def __init__(self, reports: LoadReports, stream: Stream, clock: Callable[[], float]) -> None:
        self.due = 0.0
        """When the next report is to be sent, in monotonic seconds."""
        self._reports = reports
        self._stream = stream
        self._clock = clock
        self._interval: float | None = None

    def message(self, data: bytes) -> None:
        """Begin to report in the interval that the one request asks for."""
        if self._interval is not None:
            self._end(InvalidInput("a call for load reports has one request: this is another"))
            return
        try:
            asked = parse_message(OrcaLoadReportRequest, data).report_interval
        except InvalidInput as error:
            self._end(error)
            return
        self._interval = max(TICK_S, asked.seconds + asked.nanos / 1e9)
        self._reports.join(self)

    def tell(self, message: bytes) -> None:
        """Send a report."""
        # Looks come a little more or less than a second after each other.
        self.due = self._clock() + (self._interval or TICK_S) - TICK_S / 2
        self._stream.send((message,))

    def half_closed(self) -> None:
        """Go on: the caller sends one request and listens."""
        if self._interval is None:
            self._end(InvalidInput("a call for load reports needs a request"))

    def drain(self) -> None:
        """End: a report has no end of its own, and would use up the time to stop."""
        self._end(ShuttingDown("the server stops; ask another one for its load"))

    def cancel(self) -> None:
        """Report no more."""
        self._reports.leave(self)

    def _end(self, error: InferdError) -> None:
        self._reports.leave(self)
        self._stream.fail(error)


def report(load: ServerLoad, before: ServerLoad, seconds: float) -> bytes:
    """Return the report of a load, and of what happened in so many seconds before it."""
    made = OrcaLoadReport(
        application_utilization=load.busy,
        rps_fractional=max(0, load.answers - before.answers) / seconds,
        eps=max(0, load.errors - before.errors) / seconds,
        named_metrics=load.waiting,
    )
    serialized: bytes = made.SerializeToString()
    return serialized
