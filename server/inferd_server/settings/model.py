"""The settings of a server, one section for each part that needs some."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from inferd_server.address import is_unix, socket_path
from inferd_server.settings.alerts import AlertSettings
from inferd_server.settings.drift import DriftSettings
from inferd_server.settings.feedback import FeedbackSettings
from inferd_server.settings.monitoring import MonitoringSettings
from inferd_server.settings.reading import HIDDEN
from inferd_server.settings.section import Bytes, Count, Delay, Port, Seconds, Section
from inferd_server.settings.security import SealSettings, SecuritySettings
from inferd_server.settings.store import StoreSettings
from inferd_server.settings.tracing import TracingSettings

ALL = "all"
GPU = re.compile(r"\d{1,4}|(GPU|MIG)-[0-9a-fA-F/-]+")
"""The index of a GPU, or the beginning of a UUID."""
PROVIDER = "ExecutionProvider"
"""The end of every name of a provider of ONNX Runtime."""
SOCKET_PATH_BYTES = 107
"""Source: unix(7)."""


def shipped_models() -> Path:
    """Return the folder of the models inside this package."""
    return Path(str(files("inferd_server") / "shipped_models"))


class ListenSettings(Section):
    """Addresses."""

    host: str = Field(
        "127.0.0.1", description="address to listen on, or unix:///PATH for a unix socket"
    )
    grpc_port: Port = Field(8001, description="port of the gRPC services; 0 takes a free one")
    metrics_port: Port = Field(8002, description="port of /metrics; 0 takes a free one")
    metrics_host: str = Field("", description="address of the metrics port; empty: that of host")
    metrics_max_connections: Annotated[int, Field(ge=1, le=4096)] = Field(
        32, description="connections of the metrics port at a time"
    )
    metrics_page: Literal["auto", "all", "numbers", "off"] = Field(
        "auto",
        description="page for people at / of the metrics port; numbers: only what /metrics tells; "
        "all: reasons, alerts and log lines, too; auto: all on a loopback host without identities, "
        "else numbers",
    )
    transport: Literal["auto", "aio", "completion_queue"] = Field(
        "auto", description="auto: the completion queue where a self-test proves it, else aio"
    )
    max_message_bytes: Annotated[int, Field(ge=1024, lt=2**31)] = Field(
        128 * 1024 * 1024, description="largest message received or sent"
    )
    max_stream_messages: Count = Field(
        256, description="messages of one stream that may await their answer"
    )
    max_in_flight_bytes: Bytes = Field(
        1024**3, description="bytes of requests, of all callers, that may await their answer"
    )
    max_unsent_bytes: Annotated[int, Field(ge=1024)] = Field(
        512 * 1024**2, description="bytes of answers, of all callers, that may wait to be taken"
    )
    accept_compressed: bool = Field(True, description="take compressed requests")
    max_compression_ratio: Annotated[int, Field(ge=0)] = Field(
        100, description="times a compressed request above 1 MiB may grow; 0 is no limit"
    )
    max_metadata_bytes: Annotated[int, Field(ge=1024, lt=2**31)] = Field(
        16 * 1024, description="largest metadata of a call, gRPC's own headers among it"
    )
    max_concurrent_streams: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        4096, description="calls of one connection at a time; 0 is no limit"
    )
    max_connections: Annotated[int, Field(ge=0, lt=2**31 - 1)] = Field(
        0, description="connections of a process at a time; 0 is what its descriptors allow"
    )
    handshake_timeout_s: Seconds = Field(
        10.0, description="seconds a new connection gets to become TLS and HTTP/2; 0 is no limit"
    )
    keepalive_time_s: Seconds = Field(
        60.0, description="seconds of silence after which a connection is pinged; 0 is never"
    )
    keepalive_timeout_s: Annotated[Seconds, Field(gt=0)] = Field(
        20.0, description="seconds for the answer to a ping before the connection is closed"
    )
    min_ping_interval_s: Seconds = Field(
        10.0, description="connections whose callers ping more often than this are closed"
    )
    load_reports: bool = Field(
        False, description="tell with every answer how busy the server is, for balancers (ORCA)"
    )
    max_connection_age_s: Seconds = Field(
        0.0, description="seconds after which callers must connect anew; 0 is never"
    )
    max_connection_age_grace_s: Seconds = Field(
        0.0, description="seconds that calls of such a connection get to end; 0 is no limit"
    )

    @field_validator("host")
    @classmethod
    def _address(cls, value: str) -> str:
        """Take an IPv6 address with its brackets; refuse what is no address."""
        host = value[1:-1] if value.startswith("[") and value.endswith("]") else value
        problem = host_problem(host)
        if problem:
            raise ValueError(problem)
        return host


def host_problem(host: str) -> str:
    """Say why nobody can listen on a host; "" if it may be one."""
    if is_unix(host):
        path = socket_path(host)
        if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
            return f"the path of a unix socket has {SOCKET_PATH_BYTES} bytes at most"
        return "" if path.name else "the path of a socket was expected: unix:///PATH"
    if not host.strip() or set(host) & set("/[]"):
        return "an address of this machine was expected, or unix:///PATH"
    return ""


class RepositorySettings(Section):
    """Models and what may be done to them."""

    model_repository: Path = Field(
        default_factory=shipped_models,
        description="folder of NAME/VERSION/model.onnx, or file of one model (default: the "
        "models that come with inferd)",
    )
    model_control: Literal["auto", "on", "off"] = Field(
        "auto",
        description="loading and unloading by callers; auto: on a loopback host, "
        "elsewhere by callers with the permission admin",
    )
    strict_readiness: bool = Field(
        True,
        description="not ready while any model is not loaded that should be: those of the start, "
        "and those loaded since; false: one that serves is enough",
    )
    ready_without_models: bool = Field(
        False, description="ready, too, where there is no model that should be loaded"
    )
    concurrent_loads: Annotated[int, Field(ge=1, le=64)] = Field(
        2, description="models that callers may have loaded side by side"
    )
    link_folders: tuple[Path, ...] = Field(
        (),
        description="folders outside the model repository that links to files in it may lead "
        "into, with commas between, such as the cache of a model hub",
    )

    @field_validator("model_control", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        """Take on and off from YAML, where they are booleans."""
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class BatchingSettings(Section):
    """Defaults for models that say nothing in their model.yaml."""

    max_batch_size: Annotated[int, Field(ge=1, le=2**20)] = Field(
        32, description="rows in one batch of a model with a batch dimension"
    )
    max_queue_delay_ms: Delay = Field(
        0.0, description="how long the oldest request may wait for company"
    )
    max_queue_rows: Count = Field(
        1024, description="rows of a model that may wait or run at a time"
    )
    max_queue_bytes: Bytes = Field(
        1024**3, description="bytes of a model's inputs that may wait or run at a time"
    )
    max_queue_wait_ms: Delay = Field(
        0.0, description="a request that is expected to wait longer is refused; 0: none is"
    )
    verdict_store: str = Field(
        "auto",
        description="folder that keeps whether a model's rows may share a batch, so that this is "
        "not tried again at each start; auto: rows in the plan store, else inferd/rows in "
        "$XDG_CACHE_HOME or ~/.cache; empty: nothing is kept",
    )


class EngineSettings(Section):
    """Engines."""

    processes: Literal["auto", "inline", "threads", "split", "replicas"] = Field(
        "auto",
        description="who runs the batches: in one process the transport's thread (inline: models "
        "whose full batch takes at most 20 ms) or a thread for each engine (threads); a worker "
        "process behind front processes (split); or processes that each do everything (replicas); "
        "auto: one process on at most two cores without a GPU, replicas on more where models are "
        "small and keep no state, else split; see docs/processes.md",
    )
    replicas: Annotated[int, Field(ge=0, le=256)] = Field(
        0, description="processes of the arrangement replicas; 0: one for each core, at most 16"
    )
    cores: Annotated[int, Field(ge=0, le=4096)] = Field(
        0,
        description="cores that this server counts on, such as a pod's request, for the number "
        "of processes and of threads in a run; 0: as many as affinity and CPU limits leave",
    )
    engine_threads: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="threads inside one run; 0: by the cores"
    )
    concurrent_runs: Annotated[int, Field(ge=0, le=1024)] = Field(
        0,
        description="models that may run a batch at a time, in turns by their weights; 0: all, as "
        "the processor or GPU sees fit",
    )
    engine_providers: tuple[str, ...] = Field(
        (),
        description="ONNX Runtime providers, most wanted first, with commas between, such as "
        "CUDAExecutionProvider,CPUExecutionProvider",
    )
    plan_store: str = Field(
        "",
        description="folder of TensorRT plans: models run on TensorRT, and on ONNX Runtime where "
        "that cannot be or while their plan is built; empty: ONNX Runtime alone",
    )
    gpus: tuple[str, ...] = Field(
        (ALL,),
        description="GPUs and slices of GPUs (MIG) that each get a worker process, where a GPU is "
        "asked for: all that are visible, or indexes and UUIDs with commas between",
    )
    gpu_wait: Literal["auto", "spin", "yield", "block"] = Field(
        "auto",
        description="how a thread waits for TensorRT's runs: spin and yield keep a core busy and "
        "answer soonest, block sleeps; auto: as CUDA does, spin where cores are enough",
    )
    cpu_fallback: bool = Field(
        True,
        description="serve on the processor where a GPU was asked for and worker processes that "
        "use it end again and again before they serve",
    )

    @field_validator("gpus")
    @classmethod
    def _gpus(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse what names no GPU."""
        for name in value if value != (ALL,) else ():
            if not GPU.fullmatch(name):
                raise ValueError(f"{name!r} is no GPU; all, 0, or GPU-... or MIG-... was expected")
        return value or (ALL,)

    @field_validator("engine_providers")
    @classmethod
    def _providers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse what can be no provider: it would be passed over for the processor's."""
        for name in value:
            if not name.endswith(PROVIDER) or name == PROVIDER:
                raise ValueError(f"{name!r} is no provider; names are like CPU{PROVIDER}")
        return value


class SplitSettings(Section):
    """Front processes, and the memory that each shares with the worker."""

    fronts: Annotated[int, Field(ge=0, le=256)] = Field(
        0, description="front processes; 0: by the cores, most of them beside a GPU"
    )
    max_requests: Annotated[int, Field(ge=1, le=2**20)] = Field(
        4096, description="requests of one front that may be in flight"
    )
    input_bytes: Annotated[int, Field(ge=2**16, le=2**40)] = Field(
        256 * 1024 * 1024,
        description="memory of one front for requests' inputs, rounded up to a power of two; "
        "a request larger than that is refused",
    )
    answer_bytes: Annotated[int, Field(ge=2**16, le=2**40)] = Field(
        128 * 1024 * 1024,
        description="memory of one front for outputs; outputs larger than that are refused",
    )


class CacheSettings(Section):
    """Answers kept for equal requests, of the models whose model.yaml asks for it."""

    cache_bytes: Annotated[int, Field(ge=0, le=2**40)] = Field(
        256 * 1024 * 1024, description="bytes of answers that each process with callers may keep"
    )
    cache_max_waiting: Annotated[int, Field(ge=0, le=2**20)] = Field(
        1024, description="requests that may wait for an equal one in flight"
    )
    cache_redis_url: str = Field(
        "",
        description="redis://, rediss:// or unix:// of a Redis that servers share as the second "
        "level; empty: none",
    )
    cache_redis_password_file: str = Field(
        "", description="file with the password of Redis, read for each connection"
    )
    cache_redis_timeout_ms: Annotated[float, Field(ge=1, le=10_000)] = Field(
        100.0, description="how long a request waits for Redis before it runs"
    )

    @field_validator("cache_redis_url")
    @classmethod
    def _url(cls, value: str) -> str:
        """Refuse what cannot be used; the value is not shown, because it may hold a password."""
        problem = redis_problem(value)
        if problem:
            raise PydanticCustomError(HIDDEN, "{problem}", {"problem": problem})
        return value


def redis_problem(url: str) -> str:
    """Say why Redis cannot be used at a URL; "" if it can, or if the URL is empty."""
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 raises
    except ValueError:
        return "this is no URL"
    if parts.scheme not in {"redis", "rediss", "unix"}:
        return "redis://, rediss:// or unix:// was expected"
    if parts.password is not None or "password" in parse_qs(parts.query):
        return "a password belongs into the file that cache_redis_password_file names"
    if find_spec("redis") is None:
        return "this needs the package redis: install inferd[redis]"
    wrong = wrong_options(url)
    return f"the options of the URL cannot be used: {', '.join(wrong)}" if wrong else ""


def wrong_options(url: str) -> list[str]:
    """Return the names of a URL's options that Redis' client does not know, or not like that.

    Each is tried alone, so that no value has to be shown.
    """
    from redis import ConnectionPool

    parts, wrong = urlsplit(url), []
    for name, values in parse_qs(parts.query, keep_blank_values=True).items():
        alone = urlunsplit(parts._replace(query=urlencode({name: values[0]})))
        try:
            pool = ConnectionPool.from_url(alone)
            pool.connection_class(**pool.connection_kwargs)
        except (TypeError, ValueError):
            wrong.append(name)
    return wrong


class SurvivalSettings(Section):
    """What is done about processes that die or hang, and about their requests."""

    retry_wait_s: Seconds = Field(
        10.0,
        description="seconds that a request may wait for the next worker process, after its own "
        "died before it was answered or where there is none; 0: it is answered UNAVAILABLE at once",
    )
    quarantine_s: Seconds = Field(
        300.0, description="seconds for which a request is refused that ended two worker processes"
    )
    canary_interval_s: Seconds = Field(
        10.0,
        description="seconds after which a model that answered nobody is tried with one row of "
        "zeros, and for the answer; a model that fails it is not ready; must be longer than a "
        "run of any model; 0: never",
    )
    hang_timeout_s: Seconds = Field(
        120.0,
        description="seconds without any sign of life after which a process is ended and started "
        "anew; must be longer than the longest run of a model; 0: never",
    )
    repair_timeout_s: Seconds = Field(
        300.0,
        description="seconds without a worker process that serves after which liveness fails; "
        "must be longer than the models take to load; 0: never",
    )


class LifecycleSettings(Section):
    """Start and stop."""

    drain_delay_s: Seconds = Field(
        0.0, description="seconds between readiness going and new calls being refused"
    )
    drain_timeout_s: Seconds = Field(
        30.0, description="seconds that running calls get before they are cancelled"
    )


class LogSettings(Section):
    """Logs, on standard error."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severity to log"
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="auto: text on a terminal, JSON elsewhere"
    )


class Settings(Section):
    """All sections. Every name is unique, so that files, flags and environment are flat."""

    listen: ListenSettings = ListenSettings()
    security: SecuritySettings = SecuritySettings()
    repository: RepositorySettings = Field(default_factory=RepositorySettings)
    seal: SealSettings = SealSettings()
    store: StoreSettings = StoreSettings()
    batching: BatchingSettings = BatchingSettings()
    engine: EngineSettings = EngineSettings()
    split: SplitSettings = SplitSettings()
    cache: CacheSettings = CacheSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    alerts: AlertSettings = AlertSettings()
    drift: DriftSettings = DriftSettings()
    survival: SurvivalSettings = SurvivalSettings()
    lifecycle: LifecycleSettings = LifecycleSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    tracing: TracingSettings = TracingSettings()
    log: LogSettings = LogSettings()

    def verdict_folder(self, environment: Mapping[str, str]) -> Path | None:
        """Return the folder of `verdict_store`; None to keep nothing."""
        store = self.batching.verdict_store
        if store != "auto":
            return Path(store) if store else None
        if self.engine.plan_store:
            return Path(self.engine.plan_store) / "rows"
        home = environment.get("HOME", "")
        cache = environment.get("XDG_CACHE_HOME") or (f"{home}/.cache" if home else "")
        return Path(cache) / "inferd" / "rows" if cache else None

    def store_folder(self, environment: Mapping[str, str]) -> Path:
        """Return the folder of `store_cache`."""
        if self.store.store_cache != "auto":
            return Path(self.store.store_cache)
        home = environment.get("XDG_CACHE_HOME") or environment.get("HOME", "/tmp") + "/.cache"  # noqa: S108 where there is no home
        return Path(home) / "inferd" / "store"

    def reference_folder(self, environment: Mapping[str, str]) -> Path | None:
        """Return the folder for what requests are compared with, beside the verdicts."""
        verdicts = self.verdict_folder(environment)
        return None if verdicts is None else verdicts / "drift"

    def mark_folder(self, environment: Mapping[str, str]) -> Path | None:
        """Return the folder for marks of models that are being loaded, beside the verdicts."""
        verdicts = self.verdict_folder(environment)
        return None if verdicts is None else verdicts / "loading"
