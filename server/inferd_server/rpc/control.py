"""Methods that change something: loading, shared memory, log and trace settings."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from inferd.oip.v2 import inference_pb2 as oip

from inferd_server.address import is_loopback
from inferd_server.errors import (
    InvalidInput,
    MemoryBudgetExceeded,
    ModelNotFound,
    ModelNotReady,
    ModelUntrusted,
    PermissionDenied,
    RegionNotFound,
    Unimplemented,
)
from inferd_server.inference.shared_memory import Region
from inferd_server.models.entries import Models
from inferd_server.models.overrides import Override

log = logging.getLogger(__name__)

NO_CUDA = "this server has no CUDA shared memory; system shared memory works"
CONFIG, FILE = "config", "file:"
"""Parameters of a load, as Triton names them."""
TRACE = {
    "trace_level": ["OFF"],
    "trace_rate": ["1000"],
    "trace_count": ["-1"],
    "log_frequency": ["0"],
    "trace_file": [""],
    "trace_mode": ["triton"],
}


REFUSALS = (InvalidInput, MemoryBudgetExceeded, ModelNotFound, ModelNotReady, ModelUntrusted)
"""Of a load."""


class Loads(Protocol):
    """Loads and unloads models, here or in another process; both methods block."""

    def load(self, name: str, override: Override | None = None) -> None:
        """Read a model's folder anew and load what it asks for.

        Args:
            name: of the model.
            override: holds until the next load; None: what is in the folder.

        Raises:
            InvalidInput: it cannot be loaded with that override, with the reason.
            ModelNotFound: no folder of that name.
            ModelNotReady: it cannot be loaded, with the reason.
            ModelUntrusted: its files are not what was sealed or signed.
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
        """Read a model's folder anew and load what it asks for, or what the caller gives."""
        self._check(request.repository_name)
        name = request.model_name
        try:
            self._repository.load(name, override_of(request.parameters))
        except REFUSALS as error:
            # Programs look for these words of Triton's.
            text = f"failed to load {name!r}: {error}"
            raise type(error)(text, reason=error.reason) from error
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
        check_repository(repository_name)


def override_of(parameters: Mapping[str, oip.ModelRepositoryParameter]) -> Override | None:
    """Return what a caller gives to load a model with; None for nothing.

    Raises:
        InvalidInput: a parameter is unknown or of the wrong kind, or files have no config.
    """
    config = None
    files = {}
    for name, value in parameters.items():
        kind = value.WhichOneof("parameter_choice")
        if name == CONFIG and kind == "string_param":
            config = value.string_param
        elif name.startswith(FILE) and kind == "bytes_param":
            files[name.removeprefix(FILE)] = value.bytes_param
        else:
            raise InvalidInput(
                f"parameter {name!r} is none of a load: {CONFIG!r} as JSON text, and files as "
                f"bytes, such as '{FILE}1/model.onnx'"
            )
    if files and config is None:
        raise InvalidInput(f"files are given without {CONFIG!r}; '{{}}' asks for nothing special")
    return None if config is None else Override(config, files)


def check_repository(name: str) -> None:
    """Refuse the name of a repository.

    Raises:
        InvalidInput: there is one, and it has none.
    """
    if name:
        raise InvalidInput(f"there is one repository, without a name; not {name!r}")


class SharedMemory:
    """System shared memory works; of CUDA shared memory there are no regions."""

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
        self, request: oip.CudaSharedMemoryStatusRequest
    ) -> oip.CudaSharedMemoryStatusResponse:
        """List no regions: there are none."""
        if request.name:
            raise RegionNotFound(f"CUDA shared memory region {request.name!r} is not registered")
        return oip.CudaSharedMemoryStatusResponse()

    def cuda_register(
        self, _: oip.CudaSharedMemoryRegisterRequest
    ) -> oip.CudaSharedMemoryRegisterResponse:
        """Refuse."""
        raise InvalidInput(NO_CUDA)

    def cuda_unregister(
        self, _: oip.CudaSharedMemoryUnregisterRequest
    ) -> oip.CudaSharedMemoryUnregisterResponse:
        """Do nothing: a region that is not there is forgotten, and many clients begin with this."""
        return oip.CudaSharedMemoryUnregisterResponse()


class Diagnostics:
    """Log settings that work, and trace settings that say that there is no tracing."""

    def __init__(self, logs: Logs, models: Models) -> None:
        self._logs = logs
        self._models = models

    def trace_setting(self, request: oip.TraceSettingRequest) -> oip.TraceSettingResponse:
        """Return the trace settings, of all models alike; changing one is refused."""
        name = request.model_name
        if name and all(entry.name != name for entry in self._models.entries()):
            raise ModelNotFound(f"model {name!r} is not known")
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


def control_allowed(control: str, host: str, says_who: bool = False) -> bool:
    """Decide whether callers may load and unload models.

    Args:
        control: the setting model_control.
        host: listened on.
        says_who: whether others come this far only if the operator said that they may.
    """
    return control == "on" or (control == "auto" and (says_who or is_loopback(host)))
