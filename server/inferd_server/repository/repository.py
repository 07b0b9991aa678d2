"""The models that this server knows: their states, and the handle that serves a request."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from inferd_engines.engine import EngineError

from inferd_server.errors import (
    InferdError,
    ModelNotFound,
    ModelNotReady,
    SettingsError,
    VersionNotFound,
    WorkerLost,
)
from inferd_server.repository.handle import Handle
from inferd_server.repository.layout import ModelSource, model_names, read_source, select_versions
from inferd_server.repository.loader import Loader

log = logging.getLogger(__name__)


class State(Enum):
    """States of a model version, with the protocol's names."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"
    UNLOADING = "UNLOADING"


@dataclass(frozen=True, slots=True)
class Entry:
    """One model version: where it stands and why. Version 0: none could be named."""

    name: str
    version: int
    state: State
    reason: str = ""
    handle: Handle | None = None


class Repository:
    """Models by name and version. Every method may be called from any thread."""

    def __init__(self, folder: Path, loader: Loader, changed: Callable[[], None]) -> None:
        """Know a folder; nothing is loaded yet.

        Args:
            folder: of the models.
            loader: opens them.
            changed: called after any state changed, on the thread that changed it.
        """
        self._folder = folder
        self._loader = loader
        self._changed = changed
        self._entries: dict[str, dict[int, Entry]] = {}
        self._lock = threading.Lock()
        self._loads = threading.Lock()
        self._closing = threading.Event()

    def check(self) -> None:
        """See whether the folder can be read.

        Raises:
            SettingsError: it cannot.
        """
        model_names(self._folder)

    def load_all(self) -> frozenset[str]:
        """Load every model of the folder, and return those that failed.

        Raises:
            SettingsError: the folder cannot be read.
        """
        failed = set()
        for name in model_names(self._folder):
            if self._closing.is_set():
                break
            try:
                self.load(name)
            except InferdError as error:
                failed.add(name)
                log.error("a model failed to load", extra={"model": name, "error": str(error)})
        return frozenset(failed)

    def load(self, name: str) -> None:
        """Read a model's folder anew and load what it asks for; blocks.

        Versions that serve keep serving until their successor is ready, and if it fails.

        Raises:
            ModelNotFound: no folder of that name.
            ModelNotReady: it cannot be loaded, with the reason.
        """
        with self._loads:
            source = self._read(name)
            if source is None:
                raise ModelNotFound(f"model {name!r} is not in the repository")
            wanted = self._select(source)
            failures = [self._load_version(source, version) for version in wanted]
            self._retire(name, set(self._versions(name)) - set(wanted))
        for failure in filter(None, failures):
            raise failure

    def unload(self, name: str) -> None:
        """Stop serving a model after it finished what it has; blocks.

        Raises:
            ModelNotFound: nothing of that name was loaded.
        """
        with self._loads:
            versions = set(self._versions(name))
            if not versions:
                raise ModelNotFound(f"model {name!r} is not known")
            self._retire(name, versions)

    def close(self, timeout: float | None) -> None:
        """Unload everything; each model gets `timeout` seconds, and so does a load under way."""
        self._closing.set()
        loading = not self._loads.acquire(timeout=-1 if timeout is None else timeout)
        for entry in self.entries():
            if entry.handle is not None:
                self._loader.unload(entry.handle, timeout)
        if not loading:
            self._loads.release()

    def resolve(self, name: str, version: str) -> Handle:
        """Return the handle for a request; "" takes the highest version that is ready.

        Raises:
            ModelNotFound: no such model.
            VersionNotFound: it has no such version.
            ModelNotReady: it is known and not serving.
        """
        versions = self._entries.get(name)
        if not versions:
            raise ModelNotFound(f"model {name!r} is not known; {self._known()}")
        entry = choose(name, versions, version)
        if entry.handle is None or entry.state is not State.READY:
            why = f": {entry.reason}" if entry.reason else ""
            raise ModelNotReady(f"model {name!r} is {entry.state.value}{why}")
        return entry.handle

    def entries(self) -> list[Entry]:
        """Return every version of every model, sorted."""
        with self._lock:
            return [
                versions[version]
                for _, versions in sorted(self._entries.items())
                for version in sorted(versions)
            ]

    def _known(self) -> str:
        return f"known are {', '.join(sorted(self._entries))}" if self._entries else "none is"

    def _read(self, name: str) -> ModelSource | None:
        try:
            return read_source(self._folder, name)
        except SettingsError as error:
            raise self._failed(name, error) from error

    def _select(self, source: ModelSource) -> Iterable[int]:
        try:
            return select_versions(list(source.versions), source.config.versions)
        except SettingsError as error:
            raise self._failed(source.name, error) from error

    def _failed(self, name: str, error: Exception) -> ModelNotReady:
        """Record a model that cannot even be read, unless it serves already."""
        if not self._versions(name):
            self._put(Entry(name, 0, State.UNAVAILABLE, str(error)))
        return ModelNotReady(f"model {name!r} cannot be loaded: {error}")

    def _load_version(self, source: ModelSource, version: int) -> ModelNotReady | None:
        """Load one version and put it in the place of what serves; return why it failed."""
        name, before = source.name, self._versions(source.name).get(version)
        serving = before.handle if before is not None else None
        if serving is None:
            self._put(Entry(name, version, State.LOADING))
        try:
            handle = self._loader.load(
                name, version, source.versions[version], source.config, self._lost
            )
        except Exception as error:
            where = {"model": name, "version": version, "error": str(error)}
            log.error("a version failed to load", extra=where, exc_info=unexpected(error))
            if serving is None:
                self._put(Entry(name, version, State.UNAVAILABLE, str(error)))
            return ModelNotReady(f"version {version} of model {name!r} cannot be loaded: {error}")
        self._put(Entry(name, version, State.READY, handle=handle))
        log.info("loaded", extra={"model": name, "version": version, **described(handle)})
        if serving is not None:
            self._loader.unload(serving, None)
        return None

    def _retire(self, name: str, versions: Iterable[int]) -> None:
        for version in versions:
            entry = self._versions(name).get(version)
            if entry is None:
                continue
            if entry.handle is not None:
                self._put(Entry(name, version, State.UNLOADING, handle=entry.handle))
                self._loader.unload(entry.handle, None)
            self._put(Entry(name, version, State.UNAVAILABLE, "unloaded"))

    def _lost(self, name: str, version: int, error: BaseException) -> None:
        entry = self._versions(name).get(version)
        self._put(Entry(name, version, State.UNAVAILABLE, f"its engine was lost: {error}"))
        if entry is not None and entry.handle is not None:
            for job in entry.handle.queue.drain():
                job.fail(WorkerLost(f"the engine of model {name!r} was lost"))

    def _versions(self, name: str) -> Mapping[int, Entry]:
        with self._lock:
            return dict(self._entries.get(name, {}))

    def _put(self, entry: Entry) -> None:
        with self._lock:
            # A new mapping each time, so that `resolve` reads without the lock.
            versions = {v: e for v, e in self._entries.get(entry.name, {}).items() if v}
            versions[entry.version] = entry
            self._entries = {**self._entries, entry.name: versions}
        self._changed()


def choose(name: str, versions: Mapping[int, Entry], version: str) -> Entry:
    """Choose the version that serves a request.

    Raises:
        VersionNotFound: the version named is not there.
    """
    if not version:
        ready = [number for number, entry in versions.items() if entry.state is State.READY]
        return versions[max(ready or versions)]
    if not version.isdecimal() or int(version) not in versions or version == "0":
        known = ", ".join(str(number) for number in sorted(versions) if number)
        raise VersionNotFound(f"model {name!r} has no version {version!r}; it has {known}")
    return versions[int(version)]


def described(handle: Handle) -> Mapping[str, object]:
    """Return what the log says of a loaded version."""
    return {
        "engine": handle.engine,
        "engine_reason": handle.engine_reason,
        "max_batch_size": handle.bounds.max_batch_size,
        "batch_reason": handle.batch_reason,
    }


def unexpected(error: Exception) -> Exception | None:
    """Return what deserves a stack trace: anything that engines do not raise on purpose."""
    return None if isinstance(error, EngineError) else error
