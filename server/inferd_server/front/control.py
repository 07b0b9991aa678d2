"""Methods that change something: loading, shared memory, log and trace settings."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from inferd.oip.v2 import inference_pb2 as oip

from inferd_server.errors import InvalidInput, PermissionDenied, Unimplemented
from inferd_server.front.regions import Region

log = logging.getLogger(__name__)

NO_CUDA = "this server has no CUDA shared memory: no GPU engine is loaded"
TRACE = {
    "trace_level": ["OFF"],
    "trace_rate": ["1000"],
    "trace_count": ["-1"],
    "log_frequency": ["0"],
    "trace_file": [""],
    "trace_mode": ["triton"],
}


class Loads(Protocol):
    """Loads and unloads models, here or in another process; both methods block."""

    def load(self, name: str) -> None:
        """Read a model's folder anew and load what it asks for.

        Raises:
            ModelNotFound: no folder of that name.
            ModelNotReady: it cannot be loaded, with the reason.
        """

    def unload(self, name: str) -> None:
        """Stop serving a model after it finished what it has.

        Raises:
            ModelNotFound: nothing of that name was loaded.
        """


class Regions(Protocol):
    """Shared memory regions of every process that reads requests; the methods may block."""

    def status(self, name: str) -> Mapping[str, Region]:
        """Return one region, or all when the name is empty.

        Raises:
            RegionNotFound: no such region.
        """

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Open a part of a shared memory object.

        Raises:
            AlreadyExists: the name is taken.
            InvalidInput: no such object, or it is smaller than that.
        """

    def unregister(self, name: str) -> None:
        """Forget one region; an unknown name is no error."""

    def unregister_all(self) -> None:
        """Forget all regions."""


class Logs(Protocol):
    """What is logged, in every process; `change` may block."""

    def read(self) -> Mapping[str, bool | int | str]:
        """Return the settings as Triton names them."""

    def change(self, changes: Mapping[str, bool | int | str]) -> None:
        """Change some of them.

        Raises:
            InvalidInput: an unknown setting, or one that cannot be changed or be had.
        """


class ModelControl:
    """Loads and unloads models when callers may ask for it."""

    def __init__(self, repository: Loads, allowed: bool) -> None:
        self._repository = repository
        self._allowed = allowed

    def load(self, request: oip.RepositoryModelLoadRequest) -> oip.RepositoryModelLoadResponse:
        """Read a model's folder anew and load what it asks for."""
        self._check(request.repository_name)
        if request.parameters:
            raise Unimplemented(
                "models are loaded as they are in the repository; parameters "
                f"({', '.join(sorted(request.parameters))}) are not supported"
            )
        self._repository.load(request.model_name)
        return oip.RepositoryModelLoadResponse()

    def unload(
        self, request: oip.RepositoryModelUnloadRequest
    ) -> oip.RepositoryModelUnloadResponse:
        """Stop serving a model; no model depends on another, so unload_dependents says nothing."""
        self._check(request.repository_name)
        self._repository.unload(request.model_name)
        return oip.RepositoryModelUnloadResponse()

    def _check(self, repository_name: str) -> None:
        if not self._allowed:
            raise PermissionDenied(
                "loading and unloading by callers is off here; model_control: on allows it"
            )
        if repository_name:
            raise InvalidInput(f"there is one repository, without a name; not {repository_name!r}")


class SharedMemory:
    """System shared memory works; CUDA shared memory needs a GPU."""

    def __init__(self, regions: Regions) -> None:
        self._regions = regions

    def status(
        self, request: oip.SystemSharedMemoryStatusRequest
    ) -> oip.SystemSharedMemoryStatusResponse:
        """List the regions."""
        status = oip.SystemSharedMemoryStatusResponse.RegionStatus
        return oip.SystemSharedMemoryStatusResponse(
            regions={
                name: status(
                    name=name, key=region.key, offset=region.offset, byte_size=region.byte_size
                )
                for name, region in self._regions.status(request.name).items()
            }
        )

    def register(
        self, request: oip.SystemSharedMemoryRegisterRequest
    ) -> oip.SystemSharedMemoryRegisterResponse:
        """Open a region."""
        self._regions.register(request.name, request.key, request.offset, request.byte_size)
        return oip.SystemSharedMemoryRegisterResponse()

    def unregister(
        self, request: oip.SystemSharedMemoryUnregisterRequest
    ) -> oip.SystemSharedMemoryUnregisterResponse:
        """Forget a region, or all."""
        if request.name:
            self._regions.unregister(request.name)
        else:
            self._regions.unregister_all()
        return oip.SystemSharedMemoryUnregisterResponse()

    def cuda_status(
        self, _: oip.CudaSharedMemoryStatusRequest
    ) -> oip.CudaSharedMemoryStatusResponse:
        """Refuse."""
        raise Unimplemented(NO_CUDA)

    def cuda_register(
        self, _: oip.CudaSharedMemoryRegisterRequest
    ) -> oip.CudaSharedMemoryRegisterResponse:
        """Refuse."""
        raise Unimplemented(NO_CUDA)

    def cuda_unregister(
        self, _: oip.CudaSharedMemoryUnregisterRequest
    ) -> oip.CudaSharedMemoryUnregisterResponse:
        """Refuse."""
        raise Unimplemented(NO_CUDA)


class Diagnostics:
    """Log settings that work, and trace settings that say that there is no tracing."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    def trace_setting(self, request: oip.TraceSettingRequest) -> oip.TraceSettingResponse:
        """Return the trace settings; changing one is refused."""
        for name, value in request.settings.items():
            if name not in TRACE:
                raise InvalidInput(f"unknown trace setting {name!r}; known are {', '.join(TRACE)}")
            # An empty value clears a setting back to its default, which is what it is.
            if value.value and list(value.value) != TRACE[name]:
                raise Unimplemented(f"this server does not trace; {name} cannot be changed")
        setting = oip.TraceSettingResponse.SettingValue
        return oip.TraceSettingResponse(
            settings={name: setting(value=value) for name, value in TRACE.items()}
        )

    def log_settings(self, request: oip.LogSettingsRequest) -> oip.LogSettingsResponse:
        """Change what is logged, and return what is."""
        changes: dict[str, bool | int | str] = {}
        for name, value in request.settings.items():
            kind = value.WhichOneof("parameter_choice")
            if kind is not None:
                changes[name] = getattr(value, kind)
        if changes:
            self._logs.change(changes)
        return oip.LogSettingsResponse(settings=_log_values(self._logs.read()))


def _log_values(
    settings: Mapping[str, bool | int | str],
) -> dict[str, oip.LogSettingsResponse.SettingValue]:
    setting = oip.LogSettingsResponse.SettingValue
    answer = {}
    for name, value in settings.items():
        if isinstance(value, bool):
            answer[name] = setting(bool_param=value)
        elif isinstance(value, int):
            answer[name] = setting(uint32_param=value)
        else:
            answer[name] = setting(string_param=value)
    return answer
