"""Sends the traces of requests that are over, from a thread of its own."""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

from inferd_server.monitoring.alerts.sinks import Pace
from inferd_server.monitoring.bounded_log import BoundedLog
from inferd_server.monitoring.chance import Draw
from inferd_server.monitoring.tracing.otlp import ReceiverRefused, SpanEncoder, poster
from inferd_server.monitoring.tracing.spans import Attributes, Batches, RequestTrace, Span, spans_of
from inferd_server.settings.tracing import TracingSettings
from inferd_server.threads import Pauses
from inferd_server.version import VERSION

log = logging.getLogger(__name__)
MOST_WAITING = 4096
"""Requests that wait to be sent; beyond, they are dropped."""
MOST_AT_ONCE = 2048
"""Requests of one message."""
PAUSE_S = 0.00005
"""A short one between requests: all of them may be traced."""
FIRST_S, LONGEST_S = 1.0, 30.0
"""Pauses before a message is sent again."""
Encode = Callable[[Iterable[Span], int], bytes]


class TraceSender:
    """Sends what is told of requests every few seconds. Any thread may call `put`; it never waits.

    What cannot be sent is kept and sent again, and what comes meanwhile waits, up to a bound.
    """

    def __init__(
        self,
        encode: Encode,
        post: Callable[[bytes], None],
        draw: Draw,
        clock: Callable[[], float],
        wall: Callable[[], float],
        pace: Pace,
    ) -> None:
        """Prepare.

        Args:
            encode: writes spans as a message, see `SpanEncoder`.
            post: sends a message, see `poster`.
            draw: makes the ids of spans.
            clock: monotonic seconds.
            wall: seconds since the epoch.
            pace: of messages, unless as many requests wait as one can hold.
        """
        self._encode = encode
        self._post = post
        self._draw = draw
        self._clock = clock
        self._wall = wall
        self._pace = pace
        self._waiting: deque[RequestTrace] = deque()
        self._batches = Batches(draw)
        self._unsent = b""
        # Requests of that message.
        self._held = 0
        self._sent = 0
        self._dropped = 0
        self._failures = BoundedLog(log, clock, lines=1, period=60.0)
        self._ended = threading.Event()
        # Set when nothing is waited for any more.
        self._due = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._live, name="traces", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def put(self, request: RequestTrace) -> None:
        """Send the trace of a request soon, or drop it where too many wait."""
        if len(self._waiting) < MOST_WAITING:
            self._waiting.append(request)
            if len(self._waiting) >= MOST_AT_ONCE and not self._due.is_set():
                self._due.set()
        else:
            self._drop(1)

    def counters(self) -> Mapping[str, float]:
        """Return what /metrics tells."""
        with self._lock:
            return {
                "inferd_traces_sent_total": float(self._sent),
                "inferd_traces_dropped_total": float(self._dropped),
            }

    def close(self, patience: float) -> None:
        """Send what waits, once, within so many seconds."""
        self._ended.set()
        self._due.set()
        if self._thread.is_alive():
            self._thread.join(patience)

    def _live(self) -> None:
        failures = 0
        while not self._over(failures):
            failures = self._send(failures)
        # The batches of the last requests have to be told, too.
        for _ in range(MOST_WAITING // MOST_AT_ONCE + 2):
            if self._send(0):
                self._drop(self._held + len(self._waiting))
                return

    def _over(self, failures: int) -> bool:
        """Return once a message is due; True at the end."""
        (self._ended if failures else self._due).wait(self._pace.after(failures))
        self._due.clear()
        return self._ended.is_set()

    def _send(self, failures: int) -> int:
        """Send one message, if there is anything; return how many times in a row that failed."""
        try:
            if not self._unsent:
                self._fill()
            if self._unsent:
                self._post(self._unsent)
        except ReceiverRefused as error:
            self._failures("refused", logging.ERROR, "traces are lost", {"error": str(error)})
            self._drop(self._held)
        except OSError as error:
            about = {"error": str(error)}
            self._failures(
                "unsent", logging.WARNING, "traces cannot be sent; once more later", about
            )
            return failures + 1
        except Exception:
            # The thread goes on: a header that cannot be sent, or a fault of ours.
            log.exception("traces are lost")
            self._drop(self._held)
        else:
            with self._lock:
                self._sent += self._held
        self._unsent, self._held = b"", 0
        return 0

    def _fill(self) -> None:
        """Make the next message of what waits, if anything does."""
        taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
        batches = [batch.told() for batch in self._batches.over()]
        self._held = len(taken)
        if taken or batches:
            offset = round((self._wall() - self._clock()) * 1e9)
            self._unsent = self._encode(self._spans(taken, batches), offset)

    def _spans(self, requests: Iterable[RequestTrace], batches: Iterable[Span]) -> Iterator[Span]:
        """Yield the spans of a message, and let other threads run between requests."""
        pause = Pauses(PAUSE_S)
        yield from batches
        for request in requests:
            yield from spans_of(request, self._batches, self._draw)
            pause()

    def _drop(self, count: int) -> None:
        with self._lock:
            self._dropped += count


def make_sender(settings: TracingSettings, clock: Callable[[], float]) -> TraceSender | None:
    """Return what sends traces, started; None where none are wanted."""
    if not settings.traces_to:
        return None
    resource: Attributes = (
        ("service.name", settings.trace_service),
        ("service.version", VERSION),
        ("host.name", socket.gethostname()),
        ("process.pid", os.getpid()),
    )
    encode = SpanEncoder(resource, VERSION)
    post = poster(settings.trace_url, settings.trace_headers_file)
    pace = Pace(settings.trace_pause_s, FIRST_S, LONGEST_S)
    sender = TraceSender(encode, post, random.getrandbits, clock, time.time, pace)
    sender.start()
    return sender
