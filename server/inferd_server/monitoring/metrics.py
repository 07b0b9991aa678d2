"""Prometheus metrics. Labels come from loaded models and fixed sets only, so they stay few."""

from __future__ import annotations

import threading
from collections import Counter as Tally
from dataclasses import dataclass
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, start_http_server

from inferd_server.errors import AddressInUse
from inferd_server.scheduler.job import Execution, Phases

SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
)  # fmt: skip
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
MODEL = ("model", "version")
UNKNOWN = ("", "")


@dataclass(frozen=True, slots=True)
class Series:
    """The series of one model version: finding them by label costs more than adding to them."""

    request: Histogram
    queue: Histogram
    waited: Histogram
    gather: Histogram
    compute: Histogram
    rows: Histogram
    in_flight: Gauge


class Metrics:
    """Every metric of the server, in a registry of its own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()

        def histogram(name: str, text: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
            return Histogram(name, text, MODEL, buckets=buckets, registry=registry)

        self._request = histogram(
            "inferd_request_seconds",
            "From the request being parsed to its answer being handed over",
        )
        self._queue = histogram(
            "inferd_queue_seconds", "From a request being admitted to its batch being taken"
        )
        self._waited = histogram(
            "inferd_batch_wait_seconds", "A free engine waiting for a batch to fill"
        )
        self._gather = histogram("inferd_gather_seconds", "Making a taken batch contiguous")
        self._compute = histogram("inferd_compute_seconds", "The engine, one batch")
        self._rows = histogram("inferd_batch_rows", "Rows of the batches that ran", ROWS)
        self._requests = Counter(
            "inferd_requests", "Inference requests answered", (*MODEL, "code"), registry=registry
        )
        self._in_flight = Gauge(
            "inferd_in_flight_requests", "Admitted and not answered", MODEL, registry=registry
        )
        self._engine = Gauge(
            "inferd_engine", "1 for the engine that serves", (*MODEL, "engine"), registry=registry
        )
        self._ready = Gauge("inferd_ready", "1 while the server is ready", registry=registry)
        self._engines: Tally[tuple[str, str, str]] = Tally()
        self._lock = threading.Lock()
        self._series: dict[tuple[str, int], Series] = {}
        self._info = Info("inferd_server", "Version and transport", registry=registry)

    def server(self, version: str, transport: str) -> None:
        """Tell what runs."""
        self._info.info({"version": version, "transport": transport})

    def ready(self, ready: bool) -> None:
        """Tell whether the server is ready."""
        self._ready.set(ready)

    def loaded(self, model: str, version: int, engine: str) -> None:
        """Tell which engine serves a model version."""
        labels = (model, str(version), engine)
        with self._lock:
            self._engines[labels] += 1
            self._engine.labels(*labels).set(1)

    def unloaded(self, model: str, version: int, engine: str) -> None:
        """Take back a `loaded`; after a reload, another one may be left."""
        labels = (model, str(version), engine)
        with self._lock:
            self._engines[labels] -= 1
            if not self._engines[labels]:
                del self._engines[labels]
                self._engine.remove(*labels)

    def admitted(self, model: str, version: int) -> None:
        """Count a request in."""
        self._of(model, version).in_flight.inc()

    def withdrawn(self, model: str, version: int) -> None:
        """Take back an `admitted`: the request goes elsewhere."""
        self._of(model, version).in_flight.dec()

    def answered(
        self, model: str, version: int, code: str, seconds: float, phases: Phases | None
    ) -> None:
        """Count an admitted request out; `phases` if it ran."""
        series = self._of(model, version)
        series.in_flight.dec()
        series.request.observe(seconds)
        if phases is not None:
            series.queue.observe(phases.queue)
        self._requests.labels(model, str(version), code).inc()

    def refused(self, model: tuple[str, int] | None, code: str) -> None:
        """Count a request that was never admitted; None for a model that is not known."""
        labels = UNKNOWN if model is None else (model[0], str(model[1]))
        self._requests.labels(*labels, code).inc()

    def executed(self, model: str, version: int, run: Execution) -> None:
        """Count a batch."""
        series = self._of(model, version)
        series.rows.observe(run.rows)
        series.waited.observe(run.waited)
        series.gather.observe(run.gather)
        series.compute.observe(run.compute)

    def _of(self, model: str, version: int) -> Series:
        found = self._series.get((model, version))
        if found is None:
            labels = (model, str(version))
            found = self._series[model, version] = Series(
                request=self._request.labels(*labels),
                queue=self._queue.labels(*labels),
                waited=self._waited.labels(*labels),
                gather=self._gather.labels(*labels),
                compute=self._compute.labels(*labels),
                rows=self._rows.labels(*labels),
                in_flight=self._in_flight.labels(*labels),
            )
        return found


class MetricsServer:
    """Serves /metrics over HTTP."""

    def __init__(self, metrics: Metrics) -> None:
        self._registry = metrics.registry
        self._running: tuple[WSGIServer, threading.Thread] | None = None

    def start(self, host: str, port: int) -> int:
        """Listen and return the port.

        Raises:
            AddressInUse: the address cannot be bound.
        """
        try:
            self._running = start_http_server(port, host, self._registry)
        except OSError as error:
            raise AddressInUse(
                f"metrics_port {port} on {host} cannot be had: {error.strerror}; "
                "choose another with --metrics-port"
            ) from error
        return int(self._running[0].server_port)

    def stop(self) -> None:
        """Stop listening."""
        if self._running is not None:
            server, thread = self._running
            server.shutdown()
            server.server_close()
            thread.join()
            self._running = None
