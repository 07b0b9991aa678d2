"""Recorder: writes samples into the parts of a recording, on a thread of its own."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
from collections import Counter as Tally
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from inferd.recording import PartName, Recorded, part_key, part_name, write_part
from inferd_store.errors import StoreError
from inferd_store.objects import ANY, Objects, is_url, open_objects

from inferd_server.monitoring.bounded_log import BoundedLog
from inferd_server.monitoring.masking import masked
from inferd_server.monitoring.parts import Parts, RecordingPart
from inferd_server.monitoring.samples import Sample, array_bytes
from inferd_server.settings.monitoring import MonitoringSettings

log = logging.getLogger(__name__)
SLACK = 16
"""The oldest parts are looked for whenever this part of the bound was written."""
REQUEST_BYTES = 1024
"""What a request counts for besides its tensors."""
KEY_BYTES = 32
LINES, PERIOD_S = 1, 60.0
"""What is told of parts that cannot be written."""


class Recorder:
    """A consumer of samples. Any thread may call."""

    def __init__(
        self,
        settings: MonitoringSettings,
        objects: Objects,
        process: str,
        key: bytes,
        clock: Callable[[], float],
    ) -> None:
        """Begin with nothing to write.

        Args:
            settings: what the recording is bounded by.
            objects: where it is.
            process: name of this process, which no other one has that records there.
            key: secret, for hashes of texts.
            clock: monotonic seconds.
        """
        self._objects = objects
        self._process = process
        self._key = key
        self._clock = clock
        self._suffix = settings.record_suffix
        self._parts = Parts(settings.record_part_bytes, settings.record_part_s)
        self._retention = Retention(objects, settings.record_max_bytes)
        self._failures = BoundedLog(log, clock, LINES, PERIOD_S)
        self._counts: Tally[tuple[str, str, int]] = Tally()
        self._number = 0
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._live, name="recorder", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def __call__(self, sample: Sample) -> None:
        """Take what of a sample may be recorded, or drop it where too much waits to be written."""
        request = masked(sample, self._key)
        if request is None:
            return
        nbytes = bytes_of(request)
        with self._changed:
            idle = self._parts.idle
            if self._closing or not self._parts.add(request, nbytes, self._clock()):
                self._count("inferd_recording_dropped_total", sample.model, sample.version)
            if idle or self._parts.full:
                # Otherwise the thread knows when the next part is due: the new one comes later.
                self._changed.notify()

    def counters(self) -> Mapping[tuple[str, str, int], float]:
        """Return what /metrics tells, by name, model and version."""
        with self._changed:
            return {key: float(count) for key, count in self._counts.items()}

    def close(self, patience: float) -> bool:
        """Write all there is, and take no more; False if that takes too long. May be repeated."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(patience)
        return not self._thread.is_alive()

    def _live(self) -> None:
        # What this takes is imported before requests come; what fails is told with the first part.
        with suppress(Exception):
            write_part((), self._suffix)
        while (part := self._next()) is not None:
            self._write(part)
            with self._changed:
                self._parts.written(part)
                # For whoever waits until all is written.
                self._changed.notify_all()

    def _next(self) -> RecordingPart | None:
        """Wait for a part that is due; None: there is none, and none will come."""
        with self._changed:
            while True:
                part = self._parts.due(self._clock(), all_of_them=self._closing)
                if part is not None or self._closing:
                    return part
                self._changed.wait(self._parts.wait(self._clock()))

    def _write(self, part: RecordingPart) -> None:
        """Write a part; one that cannot be written is lost, and counted."""
        model, version = part.version
        requests = sorted(part.requests, key=lambda one: one.at)
        self._number += 1
        count = len(requests)
        name = PartName(requests[0].at, count, self._suffix)
        key = part_key(model, version, self._process, self._number, name)
        try:
            data = write_part(requests, self._suffix)
            self._objects.put(key, data, ANY)
        except Exception as error:
            self._lost(part, error)
            return
        with self._changed:
            self._count("inferd_recorded_samples_total", model, version, count)
            self._count("inferd_recording_parts_total", model, version)
            self._count("inferd_recording_bytes_total", model, version, len(data))
        try:
            self._retention.written(len(data))
        except StoreError as error:
            about = {"error": str(error)}
            self._failures("bound", logging.ERROR, "old parts cannot be removed", about)

    def _lost(self, part: RecordingPart, error: Exception) -> None:
        model, version = part.version
        with self._changed:
            dropped = len(part.requests)
            self._count("inferd_recording_dropped_total", model, version, dropped)
        trace = None if isinstance(error, StoreError) else error
        about = {"model": model, "version": version, "dropped": dropped, "error": str(error)}
        self._failures("write", logging.ERROR, "requests could not be recorded", about, trace)

    def _count(self, name: str, model: str, version: str, by: int = 1) -> None:
        self._counts[name, model, int(version)] += by


class Retention:
    """Removes the oldest parts of a recording beyond its bound, those of others among them."""

    def __init__(self, objects: Objects, most: int) -> None:
        """Look at the first part that is written.

        Args:
            objects: where the recording is.
            most: bytes that it may have; it may have 1/SLACK more of each process for a while.
        """
        self._objects = objects
        self._most = most
        self._since = most

    def written(self, nbytes: int) -> None:
        """Take note of a new part, and now and then see what the recording has become.

        Raises:
            StoreError: it cannot be seen, or no part be removed.
        """
        self._since += nbytes
        if self._since * SLACK < self._most:
            return
        found = [(part_name(entry.key), entry) for entry in self._objects.list("")]
        parts = sorted((name.began, one) for name, one in found if name is not None)
        for key in beyond(self._most, [(one.key, one.size) for _, one in parts]):
            self._objects.delete(key)
        self._since = 0


def beyond(most: int, parts: Sequence[tuple[str, int]]) -> list[str]:
    """Return the keys of the parts to remove, of (key, bytes) from the oldest on.

    The youngest stays, however large it is.
    """
    total, removed = sum(size for _, size in parts), []
    for key, size in parts[:-1]:
        if total <= most:
            break
        removed.append(key)
        total -= size
    return removed


def bytes_of(request: Recorded) -> int:
    """Return what a request holds until it is written."""
    arrays = (*request.inputs.values(), *request.outputs.values())
    return REQUEST_BYTES + sum(map(array_bytes, arrays))


def make_recorder(settings: MonitoringSettings, clock: Callable[[], float]) -> Recorder | None:
    """Return a recorder that has begun, as the settings ask for it; None: they ask for none."""
    if not settings.record_to:
        return None
    if not is_url(settings.record_to):
        # What people sent is nobody else's to read.
        with suppress(OSError):
            Path(settings.record_to).mkdir(mode=0o700, parents=True, exist_ok=True)
    process = f"{socket.gethostname()}-{os.getpid()}"
    objects = open_objects(settings.record_to)
    recorder = Recorder(settings, objects, process, secrets.token_bytes(KEY_BYTES), clock)
    recorder.start()
    return recorder
