"""The models that this server knows: loading and unloading, and the handle for a request."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from inferd_server.errors import (
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    SettingsError,
    ShuttingDown,
)
from inferd_server.repository.entries import UNLOADED, Entries, Entry, State
from inferd_server.repository.handle import Handle
from inferd_server.repository.layout import ModelSource, model_names, read_source
from inferd_server.repository.loader import Loader, unexpected
from inferd_server.repository.overrides import Override, Overrides, Placed

__all__ = ["Entry", "Repository", "State"]

log = logging.getLogger(__name__)


class Repository:
    """Models by name and version. Every method may be called from any thread."""

    def __init__(
        self,
        folder: Path,
        loader: Loader,
        changed: Callable[[], None],
        lost: Callable[[Handle], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Know a folder; nothing is loaded yet.

        Args:
            folder: of the models.
            loader: opens them.
            changed: called after any state changed, on the thread that changed it.
            lost: called after a version that served lost an engine, on the engine's thread.
            clock: monotonic seconds.
        """
        self._clock = clock
        self._was_lost = lost
        self._changed = changed
        self._folder = folder
        self._loader = loader
        self._entries = Entries(self._tell)
        self._loads = threading.Lock()
        self._overrides = Overrides()
        self._closing = threading.Event()

    def check(self) -> None:
        """See whether the folder can be read.

        Raises:
            SettingsError: it cannot.
        """
        model_names(self._folder)

    def restore(self, overrides: Mapping[str, Override]) -> None:
        """Know what models were loaded with before this process began."""
        self._overrides.restore(overrides)

    def load_all(self) -> frozenset[str]:
        """Load every model of the folder, and return those that failed.

        Raises:
            SettingsError: the folder cannot be read.
        """
        failed = set()
        for name in sorted({*model_names(self._folder), *self._overrides.names}):
            try:
                self.reload(name)
            except ShuttingDown:
                break
            except Exception as error:
                failed.add(name)
                where = {"model": name, "error": str(error)}
                log.error("a model failed to load", extra=where, exc_info=unexpected(error))
        return frozenset(failed)

    def load(self, name: str, override: Override | None = None) -> None:
        """Read a model's folder anew and load what it asks for; blocks.

        Versions that serve keep serving until their successor is ready, and if it fails.

        Args:
            name: of the model.
            override: holds until the next load; None: what is in the folder.

        Raises:
            InvalidInput: it cannot be loaded with that override, with the reason.
            MemoryBudgetExceeded: the files of the override are too large.
            ModelNotFound: no folder of that name.
            ModelNotReady: it cannot be loaded, with the reason.
            ShuttingDown: the repository is being closed.
        """
        with self._loads:
            if override is None:
                self._load(name, None)
                self._overrides.keep(name, None)
                return
            placed = self._overrides.place(name, override)
            try:
                self._load(name, placed)
            except BaseException as error:
                placed.discard()
                if isinstance(error, ModelNotReady):
                    raise InvalidInput(str(error)) from error
                raise
            self._overrides.keep(name, placed)

    def reload(self, name: str) -> None:
        """Load a model anew as it was loaded last, with its override; blocks.

        Raises:
            InferdError: as `load`.
        """
        with self._loads:
            self._load(name, self._overrides.of(name))

    def _load(self, name: str, placed: Placed | None) -> None:
        source = self._read(name, placed)
        failures = [self._load_version(source, version) for version in source.versions]
        for failure in filter(None, failures):
            raise failure
        self._retire(name, set(self._entries.versions(name)) - set(source.versions))

    def unload(self, name: str) -> None:
        """Stop serving a model after it finished what it has; blocks.

        Raises:
            ModelNotFound: nothing of that name was loaded.
        """
        with self._loads:
            versions = self._entries.versions(name)
            if not versions:
                raise ModelNotFound(f"model {name!r} is not known")
            self._retire(name, versions)
            self._overrides.keep(name, None)

    def close(self, timeout: float | None) -> bool:
        """Unload everything; the models get `timeout` seconds in all, and so does a load under way.

        Returns:
            False if an engine or a load is still at work: it cannot be interrupted.
        """
        self._closing.set()
        alone = self._loads.acquire(timeout=-1 if timeout is None else timeout)
        try:
            handles = [entry.handle for entry in self.entries() if entry.handle is not None]
            for handle in handles:
                # All at once, so that they finish beside each other.
                handle.queue.close()
            ours = {id(handle) for handle in handles if self._entries.replace(*unloading(handle))}
            self._changed()
            until = None if timeout is None else self._clock() + timeout
            for handle in handles:
                left = None if until is None else max(0.0, until - self._clock())
                self._finish(handle, left, id(handle) in ours)
            self._overrides.close()
            return alone and all(handle.ended for handle in handles)
        finally:
            if alone:
                self._loads.release()
            self._changed()

    def _tell(self) -> None:
        # The end of many models is told once: who is told looks at all of them.
        if not self._closing.is_set():
            self._changed()

    def resolve(self, name: str, version: str) -> Handle:
        """Return the handle for a request; "" takes the highest version that is ready.

        Raises:
            ModelNotFound: no such model.
            VersionNotFound: it has no such version.
            ModelNotReady: it is known and not serving.
        """
        return self._entries.resolve(name, version)

    def choose(self, name: str, version: str) -> Entry:
        """Return the version that a request would be sent to, serving or not.

        Raises:
            ModelNotFound: no such model.
            VersionNotFound: it has no such version.
        """
        return self._entries.choose(name, version)

    def entries(self) -> list[Entry]:
        """Return every version of every model, sorted."""
        return self._entries.all()

    def _read(self, name: str, placed: Placed | None) -> ModelSource:
        try:
            names = model_names(self._folder)
        except SettingsError as error:
            # Nothing is recorded: the name need not be one of a model.
            raise ModelNotReady(f"model {name!r} cannot be loaded: {error}") from error
        if name not in names and (placed is None or placed.folder is None):
            raise ModelNotFound(f"model {name!r} is not in the repository")
        try:
            return placed.source(self._folder, name) if placed else read_source(self._folder, name)
        except SettingsError as error:
            # What is known of its versions says more than that none could be named.
            if not any(self._entries.versions(name)):
                self._entries.put(Entry(name, 0, State.UNAVAILABLE, str(error)))
            raise ModelNotReady(f"model {name!r} cannot be loaded: {error}") from error

    def _load_version(self, source: ModelSource, version: int) -> ModelNotReady | None:
        """Load one version and put it in the place of what serves; return why it failed."""
        if self._closing.is_set():
            raise ShuttingDown("the server is shutting down")
        name, before = source.name, self._entries.versions(source.name).get(version)
        serving = before is not None and before.handle is not None
        if not serving:
            self._entries.put(Entry(name, version, State.LOADING))
        try:
            handle = self._loader.load(
                name, version, source.versions[version], source.config, self._lost
            )
        except Exception as error:
            where = {"model": name, "version": version, "error": str(error)}
            log.error("a version failed to load", extra=where, exc_info=unexpected(error))
            if not serving:
                self._entries.put(Entry(name, version, State.UNAVAILABLE, str(error)))
            return ModelNotReady(f"version {version} of model {name!r} cannot be loaded: {error}")
        self._serve(handle)
        return None

    def _serve(self, handle: Handle) -> None:
        """Send requests to a handle from now on, and let its predecessor finish."""
        replaced = self._entries.put(Entry(handle.name, handle.version, State.READY, "", handle))
        log.info("loaded", extra=handle.described)
        if handle.lost:
            # Too early for `_lost` to find it.
            self._lost(handle)
        if replaced is not None and replaced.handle is not None:
            self._loader.unload(replaced.handle, None)
        if self._closing.is_set():
            # `close` may have looked already.
            self._unload(handle, None)
            raise ShuttingDown("the server is shutting down")

    def _retire(self, name: str, versions: Iterable[int]) -> None:
        for version in versions:
            entry = self._entries.versions(name).get(version)
            if entry is not None and entry.handle is not None:
                self._unload(entry.handle, None)
            elif entry is not None:
                self._entries.put(Entry(name, version, State.UNAVAILABLE, UNLOADED))

    def _unload(self, handle: Handle, timeout: float | None) -> None:
        self._finish(handle, timeout, self._entries.replace(*unloading(handle)))

    def _finish(self, handle: Handle, timeout: float | None, ours: bool) -> None:
        """Let a handle finish what it has and close it, which is ours to tell of or not."""
        if not ours:
            # Somebody else unloads it, or lost it.
            handle.retire(timeout)
            return
        # Nobody sends requests any more where everything ends.
        self._loader.unload(handle, timeout, settle=not self._closing.is_set())
        self._entries.put(Entry(handle.name, handle.version, State.UNAVAILABLE, UNLOADED))

    def _lost(self, handle: Handle) -> None:
        entry = Entry(handle.name, handle.version, State.UNAVAILABLE, handle.lost)
        if self._entries.replace(handle, entry):
            self._loader.forget(handle)
            self._was_lost(handle)


def unloading(handle: Handle) -> tuple[Handle, Entry]:
    """Return a handle, and the entry that takes its place while it finishes."""
    return handle, Entry(handle.name, handle.version, State.UNLOADING, handle=handle)
