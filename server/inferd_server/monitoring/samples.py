"""Samples: some requests with their answers, for whoever looks at them beside the requests' way."""

from __future__ import annotations

import logging
import threading
from collections import Counter as Tally
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from inferd.tensors import Array

from inferd_server.errors import MemoryBudgetExceeded
from inferd_server.monitoring.bounded_log import BoundedLog
from inferd_server.settings.monitoring import RecordingConfig
from inferd_server.threads import SideThread

log = logging.getLogger(__name__)
SAMPLE_BYTES = 16 * 1024
"""What a sample counts for besides its tensors: this bounds how many wait."""
TOGETHER_S = 2.0
"""For which the first sample waits for others, unless many wait: to wake the thread costs requests
more than what it does."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A request that was answered, and its answer. Nobody else holds or changes the arrays."""

    model: str
    version: str
    id: str
    at: float
    """When the request came, in seconds since the epoch."""
    inputs: Mapping[str, Array]
    """As the caller sent them, rows first, contiguous; BYTES are objects."""
    outputs: Mapping[str, Array]
    """Those that the caller asked for, as tensors even where it asked for classes."""
    parameters: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    """Of the request: sequence_id, priority, timeout and whatever else it had."""
    recording: RecordingConfig = field(default_factory=RecordingConfig)
    """What of it may be recorded."""


Consumer: TypeAlias = Callable[[Sample], None]
"""Looks at one sample; called on the tap's thread alone."""


def array_bytes(array: Array) -> int:
    """Return the bytes that an array holds, its texts among them."""
    texts = sum(map(len, array.reshape(-1).tolist())) if array.dtype.hasobject else 0
    return array.nbytes + texts


class Tap:
    """Hands samples to consumers on a thread that begins with the first one. Any thread may offer.

    What waits for the thread is bounded in bytes, and so in number; beyond that samples are
    dropped and counted, and no request ever waits.
    """

    def __init__(
        self, consumers: Sequence[Consumer], most_bytes: int, clock: Callable[[], float]
    ) -> None:
        """Begin with nothing that waits.

        Args:
            consumers: each gets every sample.
            most_bytes: that may wait.
            clock: monotonic seconds.
        """
        self._consumers = tuple(consumers)
        waits = "samples wait to be looked at"
        self._side = SideThread("samples", waits, most_bytes, TOGETHER_S)
        self._failures = BoundedLog(log, clock)
        self._dropped: Tally[tuple[str, int]] = Tally()
        self._lock = threading.Lock()

    def offer(self, model: str, version: int, nbytes: int, read: Callable[[], Sample]) -> None:
        """Have a sample looked at soon, or drop it where too much waits.

        Args:
            model: that answered.
            version: of the model.
            nbytes: held until `read` was called and its sample looked at.
            read: makes the sample; called on the tap's thread.
        """
        try:
            self._side.submit(nbytes + SAMPLE_BYTES, partial(self._look, model, version, read))
        except MemoryBudgetExceeded:
            self.drop(model, version)

    def drop(self, model: str, version: int) -> None:
        """Count a sample that nobody will look at."""
        with self._lock:
            self._dropped[model, version] += 1

    def counters(self) -> Mapping[tuple[str, str, int], float]:
        """Return what /metrics tells, by name, model and version."""
        with self._lock:
            dropped = dict(self._dropped)
        name = "inferd_samples_dropped_total"
        return {(name, *version): float(count) for version, count in dropped.items()}

    def flush(self, patience: float) -> bool:
        """Return once all samples offered so far were looked at; False if that takes too long."""
        done = threading.Event()
        try:
            self._side.submit(0, done.set)
        except MemoryBudgetExceeded:
            # What waits is at its bound, and the thread takes longer than anybody may wait.
            return False
        self._side.hurry()
        return done.wait(patience)

    def _look(self, model: str, version: int, read: Callable[[], Sample]) -> None:
        try:
            sample = read()
        except Exception as error:
            self.drop(model, version)
            about = {"model": model, "version": version, "error": str(error)}
            self._failures(
                (model, "read"), logging.ERROR, "a sample could not be read", about, error
            )
            return
        for consumer in self._consumers:
            try:
                consumer(sample)
            except Exception as error:
                about = {"model": model, "version": version, "error": str(error)}
                kind = model, consumer
                self._failures(kind, logging.ERROR, "a sample could not be used", about, error)
