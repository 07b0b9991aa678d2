"""Every method of every service, with its handler."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from inferd.oip.v2 import inference_pb2 as oip
from inferd.orca.v3 import service_pb2
from inferd.v1 import feedback_pb2, releases_pb2, server_pb2

from inferd_server.models.entries import ModelEntry
from inferd_server.models.readiness import model_statuses
from inferd_server.rpc.audit import audited
from inferd_server.rpc.control import Diagnostics, ModelControl, SharedMemory
from inferd_server.rpc.drift import Drift
from inferd_server.rpc.feedback import Feedback
from inferd_server.rpc.handlers import Elsewhere, Q, unary
from inferd_server.rpc.health import LIST_REQUEST, HealthBoard
from inferd_server.rpc.load_reports import LoadReports
from inferd_server.rpc.metadata import Inspection
from inferd_server.rpc.reflection import SERVICE as REFLECTION
from inferd_server.rpc.reflection import SERVICE_V1 as REFLECTION_V1
from inferd_server.rpc.reflection import Reflection
from inferd_server.rpc.releases import Releases
from inferd_server.rpc.stream import StreamInfer
from inferd_server.security.access import Access, Fixed
from inferd_server.security.permissions import Permission
from inferd_server.transport.call import (
    Call,
    Refused,
    Routes,
    StreamHandler,
    Transport,
    UnaryHandler,
    nobody,
)

INFERENCE = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"]
SERVER = server_pb2.DESCRIPTOR.services_by_name["ServerService"]
RELEASES = releases_pb2.DESCRIPTOR.services_by_name["ReleaseService"]
FEEDBACK = feedback_pb2.DESCRIPTOR.services_by_name["FeedbackService"]
LOAD = service_pb2.DESCRIPTOR.services_by_name["OpenRcaService"]
LIVENESS = "liveness"
OPEN_TO_ALL = Fixed(frozenset(Permission))
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]


@dataclass(frozen=True, slots=True)
class Services:
    """The parts that answer."""

    infer: UnaryHandler
    inspection: Inspection
    models: ModelControl
    memory: SharedMemory
    diagnostics: Diagnostics
    drift: Drift
    releases: Releases
    health: HealthBoard
    feedback: Feedback
    load: LoadReports


def routes(
    services: Services,
    loading: Elsewhere,
    unloading: Elsewhere,
    labelling: Elsewhere,
    asking: Elsewhere | None = None,
    access: Access = OPEN_TO_ALL,
    refused: Callable[[str], Refused] = nobody,
) -> Routes:
    """Return the table that a transport serves.

    Args:
        services: the parts that answer.
        loading: runs the methods that load models.
        unloading: runs those that unload some, which wait for no load.
        labelling: runs the one that takes labels, one call at a time.
        asking: runs those that ask other processes; None where there are none.
        access: decides who may call what.
        refused: returns what is told of the errors of a method that have a reason.
    """
    unary_handlers: dict[str, UnaryHandler] = {
        f"/{INFERENCE.full_name}/ModelInfer": services.infer,
        **_inspection(services.inspection, asking),
        f"/{SERVER.full_name}/Drift": unary(server_pb2.DriftRequest, services.drift.drift, asking),
        **_control(services, loading, unloading, asking, access),
        **_releases(services.releases, loading, access),
        f"/{FEEDBACK.full_name}/Feedback": unary(
            feedback_pb2.FeedbackRequest, services.feedback.feedback, labelling
        ),
        f"/{HEALTH.full_name}/Check": unary(health_pb2.HealthCheckRequest, services.health.check),
        f"/{HEALTH.full_name}/List": unary(LIST_REQUEST, services.health.list),
    }
    reflection = Reflection((INFERENCE, SERVER, RELEASES, FEEDBACK, HEALTH, LOAD))
    streaming = f"/{INFERENCE.full_name}/ModelStreamInfer"
    streams: dict[str, StreamHandler] = {
        # Its messages, too: a stream may outlive a permission, and each takes its part of a limit.
        streaming: StreamInfer(access.unary(streaming, services.infer), refused(streaming)),
        f"/{HEALTH.full_name}/Watch": services.health.watch,
        f"/{LOAD.full_name}/StreamCoreMetrics": services.load.watch,
        f"/{REFLECTION}/ServerReflectionInfo": reflection,
        f"/{REFLECTION_V1}/ServerReflectionInfo": reflection,
    }
    decided = {path: access.authorize(path) for path in (*unary_handlers, *streams)}
    return Routes(
        unary={path: access.unary(path, handler) for path, handler in unary_handlers.items()},
        streams=streams,
        authorize={path: decide for path, decide in decided.items() if decide is not None},
        refused=refused,
    )


def health_routes(health: HealthBoard) -> Routes:
    """Return the table of a port for probes: a look at one service, and nothing else."""
    return Routes(
        unary={f"/{HEALTH.full_name}/Check": unary(health_pb2.HealthCheckRequest, health.check)},
        streams={f"/{HEALTH.full_name}/Watch": health.watch},
    )


def statuses(
    entries: Iterable[ModelEntry],
    ready: bool,
    draining: bool,
    live: bool,
    sick: Collection[tuple[str, int]],
) -> dict[str, bool]:
    """Return what health tells of every service."""
    models = model_statuses(entries, draining, sick)
    return {**models, "": ready, INFERENCE.full_name: ready, LIVENESS: live}


def _inspection(inspection: Inspection, asking: Elsewhere | None) -> dict[str, UnaryHandler]:
    inference = {
        "ServerLive": unary(oip.ServerLiveRequest, inspection.server_live),
        "ServerReady": unary(oip.ServerReadyRequest, inspection.server_ready),
        "ModelReady": unary(oip.ModelReadyRequest, inspection.model_ready),
        "ServerMetadata": unary(oip.ServerMetadataRequest, inspection.server_metadata),
        "ModelMetadata": unary(oip.ModelMetadataRequest, inspection.model_metadata),
        "ModelConfig": unary(oip.ModelConfigRequest, inspection.model_config),
        "ModelStatistics": unary(oip.ModelStatisticsRequest, inspection.model_statistics, asking),
        "RepositoryIndex": unary(oip.RepositoryIndexRequest, inspection.repository_index),
    }
    return {
        **{f"/{INFERENCE.full_name}/{name}": handler for name, handler in inference.items()},
        f"/{SERVER.full_name}/Status": unary(server_pb2.StatusRequest, inspection.status),
    }


def _control(
    services: Services,
    loading: Elsewhere,
    unloading: Elsewhere,
    asking: Elsewhere | None,
    access: Access,
) -> dict[str, UnaryHandler]:
    models, memory, diagnostics = services.models, services.memory, services.diagnostics
    handlers = {
        "RepositoryModelLoad": unary(oip.RepositoryModelLoadRequest, models.load, loading),
        "RepositoryModelUnload": unary(oip.RepositoryModelUnloadRequest, models.unload, unloading),
        "SystemSharedMemoryStatus": unary(oip.SystemSharedMemoryStatusRequest, memory.status),
        "SystemSharedMemoryRegister": unary(
            oip.SystemSharedMemoryRegisterRequest, memory.register, asking
        ),
        "SystemSharedMemoryUnregister": unary(
            oip.SystemSharedMemoryUnregisterRequest, memory.unregister, asking
        ),
        "CudaSharedMemoryStatus": unary(oip.CudaSharedMemoryStatusRequest, memory.cuda_status),
        "CudaSharedMemoryRegister": unary(
            oip.CudaSharedMemoryRegisterRequest, memory.cuda_register
        ),
        "CudaSharedMemoryUnregister": unary(
            oip.CudaSharedMemoryUnregisterRequest, memory.cuda_unregister
        ),
        "TraceSetting": unary(oip.TraceSettingRequest, diagnostics.trace_setting),
        "LogSettings": unary(oip.LogSettingsRequest, diagnostics.log_settings, asking),
    }
    return {
        f"/{INFERENCE.full_name}/{name}": audited(
            INFERENCE.methods_by_name[name], handler, access.name
        )
        for name, handler in handlers.items()
    }


def _releases(releases: Releases, loading: Elsewhere, access: Access) -> dict[str, UnaryHandler]:
    def by_caller(request_class: type[Q], method: Callable[[Q, str], Message]) -> UnaryHandler:
        """Return the handler of a method that is told the name of the caller's identity."""

        def handle(call: Call) -> None:
            who = access.name(call)
            unary(request_class, lambda request: method(request, who), loading)(call)

        return handle

    messages = releases_pb2
    handlers = {
        "ListReleases": by_caller(messages.ListReleasesRequest, releases.list),
        "ShowReleases": by_caller(messages.ShowReleasesRequest, releases.show),
        "DiffReleases": by_caller(messages.DiffReleasesRequest, releases.diff),
        "ReadReleaseLog": by_caller(messages.ReadReleaseLogRequest, releases.log),
        "PromoteRelease": by_caller(messages.PromoteReleaseRequest, releases.promote),
        "RollbackRelease": by_caller(messages.RollbackReleaseRequest, releases.rollback),
        "LabelRelease": by_caller(messages.LabelReleaseRequest, releases.label),
        "RemoveRelease": by_caller(messages.RemoveReleaseRequest, releases.remove),
        "AddRelease": by_caller(messages.AddReleaseRequest, releases.add),
        "PruneReleases": by_caller(messages.PruneReleasesRequest, releases.prune),
        "BackupReleases": by_caller(messages.BackupReleasesRequest, releases.backup),
        "ListBackups": by_caller(messages.ListBackupsRequest, releases.backups),
    }
    # A part of a file changes nothing yet, and there are many.
    upload = by_caller(messages.UploadReleaseFileRequest, releases.upload)
    return {
        f"/{RELEASES.full_name}/UploadReleaseFile": upload,
        **{
            f"/{RELEASES.full_name}/{name}": audited(
                RELEASES.methods_by_name[name], handler, access.name
            )
            for name, handler in handlers.items()
        },
    }


class ProbePort:
    """Started and stopped with a server; does nothing where there is none."""

    def __init__(self, transport: Transport | None, health: HealthBoard) -> None:
        self.port = -1
        """Where it listens; -1: nowhere."""
        self._transport = transport
        self._health = health

    def start(self, address: str) -> None:
        """Listen on "host:port".

        Raises:
            AddressInUse: the address cannot be bound.
        """
        if self._transport is not None:
            self.port = self._transport.start(address, health_routes(self._health))

    def stop(self) -> None:
        """Listen no more; the last thing of a server, which is alive while it finishes calls."""
        if self._transport is not None and self.port >= 0:
            self._transport.stop(0.0)
