"""The tables of permissions: what each method takes, and what each permission covers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType


class Permission(StrEnum):
    """What a caller must be allowed to do; OPEN is what everybody may."""

    OPEN = "open"
    INFER = "infer"
    READ = "read"
    FEEDBACK = "feedback"
    """Telling what was true of predictions, which the accuracy of models is made of."""
    CONTROL = "control"
    """Loading and unloading models; the setting model_control has a say in it, too."""
    ADMIN = "admin"
    """All that changes the server or reaches into the memory of its host."""


GRANTS: Mapping[str, frozenset[Permission]] = MappingProxyType(
    {
        "infer": frozenset({Permission.INFER}),
        "read": frozenset({Permission.READ}),
        "feedback": frozenset({Permission.FEEDBACK}),
        "admin": frozenset({Permission.CONTROL, Permission.ADMIN}),
    }
)
"""What an operator grants, and what it covers."""

_INFERENCE = {
    "ModelInfer": Permission.INFER,
    "ModelStreamInfer": Permission.INFER,
    "ServerLive": Permission.READ,
    "ServerReady": Permission.READ,
    "ServerMetadata": Permission.READ,
    "ModelReady": Permission.READ,
    "ModelMetadata": Permission.READ,
    "ModelConfig": Permission.READ,
    "ModelStatistics": Permission.READ,
    "RepositoryIndex": Permission.READ,
    "RepositoryModelLoad": Permission.CONTROL,
    "RepositoryModelUnload": Permission.CONTROL,
    # Whoever registers a region reads and writes memory of the host through this server, and the
    # status tells the names under which others did.
    "SystemSharedMemoryStatus": Permission.ADMIN,
    "SystemSharedMemoryRegister": Permission.ADMIN,
    "SystemSharedMemoryUnregister": Permission.ADMIN,
    "CudaSharedMemoryStatus": Permission.ADMIN,
    "CudaSharedMemoryRegister": Permission.ADMIN,
    "CudaSharedMemoryUnregister": Permission.ADMIN,
    # One method reads the settings and changes them.
    "TraceSetting": Permission.ADMIN,
    "LogSettings": Permission.ADMIN,
}

_RELEASES = (
    "ListReleases", "ShowReleases", "DiffReleases", "ReadReleaseLog", "PromoteRelease",
    "RollbackRelease", "LabelRelease", "RemoveRelease", "UploadReleaseFile", "AddRelease",
    "PruneReleases", "BackupReleases", "ListBackups",
)  # fmt: skip

METHODS: Mapping[str, Permission] = MappingProxyType(
    {
        **{f"/inference.GRPCInferenceService/{name}": p for name, p in _INFERENCE.items()},
        "/inferd.v1.ServerService/Status": Permission.READ,
        "/inferd.v1.FeedbackService/Feedback": Permission.FEEDBACK,
        "/inferd.v1.ServerService/Drift": Permission.READ,
        **{f"/inferd.v1.ReleaseService/{name}": Permission.ADMIN for name in _RELEASES},
        # Whoever sends requests balances them.
        "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics": Permission.INFER,
        "/grpc.health.v1.Health/Check": Permission.OPEN,
        "/grpc.health.v1.Health/Watch": Permission.OPEN,
        "/grpc.health.v1.Health/List": Permission.READ,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Permission.READ,
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": Permission.READ,
    }
)
"""By the full path of a method. What does not stand here is refused to everybody."""


def covered(grants: Iterable[str]) -> frozenset[Permission]:
    """Return all permissions that some grants cover."""
    return frozenset().union(*(GRANTS[grant] for grant in grants))


def anonymous_grants(asked: tuple[str, ...], identities: bool, loopback: bool) -> tuple[str, ...]:
    """Return what callers without an identity are granted.

    Args:
        asked: the setting anonymous_permissions.
        identities: whether the operator named any callers.
        loopback: whether only this host can call.
    """
    if asked != ("auto",):
        return asked
    if identities:
        return ()
    return tuple(GRANTS) if loopback else ("infer", "read")


def grant_for(permission: Permission) -> str:
    """Return the grant that covers a permission, such as "admin" for CONTROL."""
    return next(name for name, covers in GRANTS.items() if permission in covers)
