"""The messages between supervisor, worker, fronts and replicas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from inferd_server.feedback.keys import TokenKeys
from inferd_server.models.overrides import Override
from inferd_server.models.version import Description
from inferd_server.monitoring.drift.judge import DriftReport
from inferd_server.monitoring.snapshot import MetricsSnapshot
from inferd_server.monitoring.statistics import Snapshot
from inferd_server.processes.link.layout import Layout
from inferd_server.settings.model import Settings


@dataclass(frozen=True, slots=True)
class Measured:
    """What a process counted so far."""

    metrics: MetricsSnapshot
    statistics: Mapping[tuple[str, int], Snapshot]
    """By name and version of the model."""


@dataclass(frozen=True, slots=True)
class ProcessPlace:
    """The first message to a child: what it is, and the descriptors that it inherited."""

    settings: Settings
    index: int
    layout: Layout
    links: tuple[int, ...]
    """Memory of the links: a front's to every worker, or a worker's to every front."""
    wake_fronts: tuple[int, ...]
    """eventfd of each of these links' fronts: of a front, its own alone."""
    wake_workers: tuple[int, ...]
    """eventfd of each of these links' workers: of a worker, its own alone."""
    address: str
    """Of the gRPC services; a front listens there beside the others."""
    probe_address: str = ""
    """Of the health service for probes, likewise; empty: there is none."""
    inputs: tuple[int, ...] = ()
    """For each link, the memory that its inputs are in: one for all links of a front."""
    without_gpu: str = ""
    """Why engines leave the GPU alone, which they were asked to use; empty: they do not."""
    awaits_overrides: bool = False
    """True for a process that is told `Overrides` before it may load."""
    wanted: frozenset[str] = frozenset()
    """Models that the process before should have served, whatever the repository has now."""
    unloaded: frozenset[str] = frozenset()
    """Models that callers had the process before unload: the next one does not load them."""
    logs: Mapping[str, bool | int | str] = field(default_factory=dict)
    """What is logged now, which callers may have changed since the start."""
    left_out: frozenset[str] = frozenset()
    """Models that ended workers while they were loaded: the next one does not load them either."""
    batch_limits: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """Rows that a batch may have, by name and version of models that had too many."""
    device: str = ""
    """The GPU that a worker of several has for itself, by its UUID; empty: whatever there is."""
    held: frozenset[str] | None = None
    """Models that a worker of several is to load; None: all that there are."""
    alone: bool = True
    """False for one of several workers, whose name has its number then."""
    token_keys: TokenKeys = field(default_factory=TokenKeys)
    """Of prediction tokens: one and the same for all processes that take calls."""


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A model version, as a process that holds models tells of it, or the supervisor of all."""

    name: str
    version: int
    state: str
    reason: str
    description: Description | None
    workers: Mapping[int, int] = field(default_factory=dict)
    """Workers that serve it, by index, and their numbers of it. The supervisor fills it in."""
    returning: bool = False
    """True if the worker that served it died, and the next one is expected to."""


@dataclass(frozen=True, slots=True)
class ModelRecords:
    """Every model version. From a worker, and, of all workers, on to the fronts."""

    records: tuple[ModelRecord, ...]
    settled: bool
    """Every worker has tried to load everything; before, what it says nothing of may come."""
    wanted: frozenset[str] = frozenset()
    """Models that should serve; only the supervisor asks."""
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Versions by model and label; "" is what serves requests that name no version."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The worker has tried to load everything, and these models failed."""

    failed: frozenset[str]


@dataclass(frozen=True, slots=True)
class Condition:
    """What the supervisor says of the server as a whole."""

    ready: bool
    draining: bool
    live: bool = True
    """False once the server cannot repair itself."""
    sick: tuple[tuple[str, int, str], ...] = ()
    """Model versions that are loaded and do not answer: name, version, why."""
    loaded: bool = True
    """False while one of the first processes with models has not tried to load all of them."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Told to a replica: take calls from now on."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Told to a process, which tells the same as soon as it reads that."""


@dataclass(frozen=True, slots=True)
class TryModels:
    """Told to a front or a replica: try what answered nobody lately, and tell the outcome."""

    seconds: float
    """For all of it."""


@dataclass(frozen=True, slots=True)
class Caught:
    """Asked: has it been done what was told before? The answer is that it has.

    Of a front or a replica, or of the supervisor about all fronts.
    """


@dataclass(frozen=True, slots=True)
class Listening:
    """A front or a replica takes calls, over this transport."""

    transport: str


@dataclass(frozen=True, slots=True)
class Ending:
    """Told by a process that ends by itself."""

    reason: str


@dataclass(frozen=True, slots=True)
class WorkerGone:
    """Told to a front: answer everything in flight, and begin the link anew."""

    reason: str
    worker: int = 0


@dataclass(frozen=True, slots=True)
class Disconnected:
    """Told by a front: done what `WorkerGone` says."""

    ran: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """Rows of this front that ran when the worker died, by name and version of their model."""
    worker: int = 0


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Told to the worker: rows that a batch may have, by name and version of a model."""

    rows: Mapping[tuple[str, int], int]


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Requests that are refused: fingerprints, and until when. From a front, and on to others."""

    marks: tuple[tuple[bytes, float], ...]


@dataclass(frozen=True, slots=True)
class Attach:
    """Told to a worker: serve this front."""

    link: int


@dataclass(frozen=True, slots=True)
class Detach:
    """Asked of a worker: touch the memory of this front no more."""

    link: int


@dataclass(frozen=True, slots=True)
class Load:
    """Load a model. Asked by whoever takes calls, and on to its workers or to all replicas."""

    name: str
    override: Override | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """Asked by who has opened a model: may it serve? Answered once all have."""

    name: str


@dataclass(frozen=True, slots=True)
class Taking:
    """Asked by who takes requests for a model it has opened: do all others, too?"""

    name: str


@dataclass(frozen=True, slots=True)
class ModelOverrides:
    """Told to a new process before it loads models: what callers loaded them with."""

    overrides: Mapping[str, Override]


@dataclass(frozen=True, slots=True)
class Unload:
    """Unload a model. Asked and passed on as `Load`."""

    name: str


@dataclass(frozen=True, slots=True)
class RegisterRegion:
    """Register a shared memory region. Asked by whoever takes calls, and on to all of them."""

    name: str
    key: str
    offset: int
    byte_size: int


@dataclass(frozen=True, slots=True)
class NoRegion:
    """Forget a region. Asked and passed on as `Region`."""

    name: str


@dataclass(frozen=True, slots=True)
class NoRegions:
    """Forget all regions: a message of its own, lest an empty name mean so much."""


@dataclass(frozen=True, slots=True)
class LogChange:
    """Change what is logged, everywhere."""

    changes: Mapping[str, bool | int | str]


@dataclass(frozen=True, slots=True)
class Measurements:
    """Asked: what was counted so far. By whoever takes calls: about all processes."""


@dataclass(frozen=True, slots=True)
class ShowDrift:
    """Asked by whoever takes calls: how the requests of all processes differ from references."""


@dataclass(frozen=True, slots=True)
class Drifted:
    """The answer to `ShowDrift`."""

    reports: tuple[DriftReport, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """End: let running requests finish for so many seconds. Asked; the answer comes at the end."""

    grace: float
