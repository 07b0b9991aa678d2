"""Methods that tell: liveness, readiness, metadata, configuration, statistics, index, status."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from inferd.oip.v2 import inference_pb2 as oip
from inferd.v1 import server_pb2

from inferd_server.errors import InferdError, ModelNotFound
from inferd_server.front import describe
from inferd_server.front.control import check_repository
from inferd_server.monitoring.statistics import Snapshot
from inferd_server.repository.entries import Entry, Models, State
from inferd_server.repository.handle import Handle

NAME = "inferd"
EXTENSIONS = (
    "classification", "model_configuration", "model_repository",
    "model_repository(unload_dependents)", "parameters", "schedule_policy", "sequence",
    "statistics", "system_shared_memory", "binary_tensor_data", "logging",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ServerState:
    """What the server as a whole can tell of itself."""

    version: str
    transport: str
    uptime: Callable[[], float]
    """Seconds."""
    ready: Callable[[], bool]
    draining: Callable[[], bool]
    live: Callable[[], bool]
    """False once the server cannot repair itself."""
    sick: Callable[[], Mapping[tuple[str, int], str]]
    """Model versions that are loaded and do not answer, and why."""


Counters = Callable[[Sequence[Handle]], Sequence[Snapshot]]
"""Returns what each of these versions did; blocks where other processes have to be asked."""


def own_counters(handles: Sequence[Handle]) -> list[Snapshot]:
    """Return what was counted in this process."""
    return [handle.statistics.read() for handle in handles]


class Inspection:
    """Answers questions; changes nothing."""

    def __init__(self, models: Models, state: ServerState, counters: Counters) -> None:
        self._models = models
        self._state = state
        self._counters = counters

    def server_live(self, _: oip.ServerLiveRequest) -> oip.ServerLiveResponse:
        """Say whether the server works, or will again without being started anew."""
        return oip.ServerLiveResponse(live=self._state.live())

    def server_ready(self, _: oip.ServerReadyRequest) -> oip.ServerReadyResponse:
        """Say whether requests should be sent here."""
        return oip.ServerReadyResponse(ready=self._state.ready())

    def model_ready(self, request: oip.ModelReadyRequest) -> oip.ModelReadyResponse:
        """Say whether a model serves; a model that is not known is not ready."""
        try:
            entry = self._models.choose(request.name, request.version)
        except InferdError:
            return oip.ModelReadyResponse(ready=False)
        return oip.ModelReadyResponse(ready=standing(entry, self._state.sick())[0] is State.READY)

    def server_metadata(self, _: oip.ServerMetadataRequest) -> oip.ServerMetadataResponse:
        """Name the server and the extensions of the protocol that it has."""
        return oip.ServerMetadataResponse(
            name=NAME, version=self._state.version, extensions=EXTENSIONS
        )

    def model_metadata(self, request: oip.ModelMetadataRequest) -> oip.ModelMetadataResponse:
        """Describe a model's tensors."""
        handle = self._models.resolve(request.name, request.version)
        ready = [e.version for e in self._entries(request.name) if e.state is State.READY]
        return describe.metadata(handle, ready)

    def model_config(self, request: oip.ModelConfigRequest) -> oip.ModelConfigResponse:
        """Describe how a model is served."""
        handle = self._models.resolve(request.name, request.version)
        return oip.ModelConfigResponse(config=describe.model_config(handle))

    def model_statistics(self, request: oip.ModelStatisticsRequest) -> oip.ModelStatisticsResponse:
        """Return the counters of one version, of all versions of a model, or of everything."""
        if request.name and request.version:
            handles = [self._models.resolve(request.name, request.version)]
        else:
            handles = self._handles(request.name)
        counted = zip(handles, self._counters(handles), strict=True)
        return oip.ModelStatisticsResponse(
            model_stats=[describe.statistics(handle, now) for handle, now in counted]
        )

    def repository_index(self, request: oip.RepositoryIndexRequest) -> oip.RepositoryIndexResponse:
        """List every version of every model with its state."""
        check_repository(request.repository_name)
        sick = self._state.sick()
        found = [(entry, *standing(entry, sick)) for entry in self._models.entries()]
        return oip.RepositoryIndexResponse(
            models=[
                oip.RepositoryIndexResponse.ModelIndex(
                    name=entry.name,
                    version=str(entry.version or ""),
                    state=state.value,
                    reason=reason,
                )
                for entry, state, reason in found
                if state is State.READY or not request.ready
            ]
        )

    def status(self, _: server_pb2.StatusRequest) -> server_pb2.StatusResponse:
        """Tell which engine serves each model, and why."""
        sick = self._state.sick()
        return server_pb2.StatusResponse(
            version=self._state.version,
            transport=self._state.transport,
            uptime_seconds=self._state.uptime(),
            ready=self._state.ready(),
            draining=self._state.draining(),
            models=[_status(entry, *standing(entry, sick)) for entry in self._models.entries()],
        )

    def _entries(self, name: str) -> list[Entry]:
        return [entry for entry in self._models.entries() if entry.name == name or not name]

    def _handles(self, name: str) -> list[Handle]:
        entries = self._entries(name)
        if name and not entries:
            raise ModelNotFound(f"model {name!r} is not known")
        return [entry.handle for entry in entries if entry.handle is not None]


def standing(entry: Entry, sick: Mapping[tuple[str, int], str]) -> tuple[State, str]:
    """Return the state of a version, and why it is not ready: not loaded, or it does not answer.

    The reason of a ready one is how far it could be tried before it was. Every method that tells
    of a version's state tells this.
    """
    why = sick.get((entry.name, entry.version), "") if entry.state is State.READY else ""
    warm_reason = "" if entry.handle is None else entry.handle.warm_reason
    return (State.UNAVAILABLE, why) if why else (entry.state, entry.reason or warm_reason)


def _status(entry: Entry, state: State, reason: str) -> server_pb2.ModelVersionStatus:
    status = server_pb2.ModelVersionStatus(
        name=entry.name,
        version=str(entry.version or ""),
        state=state.value,
        reason=reason,
    )
    if entry.handle is not None:
        status.engine = entry.handle.engine
        status.engine_reason = entry.handle.engine_reason
        status.max_batch_size = entry.handle.bounds.max_batch_size
        status.batch_reason = entry.handle.batch_reason
        status.instances = entry.handle.config.instances
        status.plan_state = entry.handle.plan_state
    return status
