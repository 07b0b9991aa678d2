"""The models that this server knows: loading and unloading, and the handle for a request."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from inferd_engines.engine import UntrustedFiles

from inferd_server.errors import (
    InferdError,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    ModelUntrusted,
    SettingsError,
    ShuttingDown,
)
from inferd_server.models.entries import LEFT_OUT, UNLOADED, Entries, Labels, ModelEntry, State
from inferd_server.models.files import LoadedFiles
from inferd_server.models.layout import (
    FILES_ABSENT,
    ModelSource,
    holds,
    model_names,
    read_source,
    warnings_of,
)
from inferd_server.models.load_marks import LoadMarks
from inferd_server.models.loader import Loader, unexpected
from inferd_server.models.overrides import Override, Overrides, Placed
from inferd_server.models.readiness import Agreement
from inferd_server.models.recovery import PASSING
from inferd_server.models.under_way import UnderWay
from inferd_server.models.version import Handle

log = logging.getLogger(__name__)
NOT_THERE = "not in the repository"


class Repository:
    """Models by name and version. Every method may be called from any thread."""

    def __init__(
        self,
        folder: Path,
        loader: Loader,
        changed: Callable[[], None],
        lost: Callable[[Handle], None] = lambda _: None,
        missing: Callable[[str], None] = lambda _: None,
        concurrent_loads: int = 1,
        clock: Callable[[], float] = time.monotonic,
        marks: LoadMarks | None = None,
    ) -> None:
        """Keep the folder; nothing is loaded yet.

        Args:
            folder: of the models, or the file of a single one.
            loader: opens them.
            changed: called after any state changed, on the thread that changed it.
            lost: called after a version that served lost an engine, on the engine's thread.
            missing: called with a model that should serve, and that `load_all` could not load for
                a reason that may pass by itself.
            concurrent_loads: models that may be loaded side by side.
            clock: monotonic seconds.
            marks: made of models while they are loaded; None: none are made.
        """
        self._clock = clock
        self._was_lost = lost
        self._changed = changed
        self._is_missing = missing
        self._folder = folder
        self._loader = loader
        self._entries = Entries(self._state_changed)
        self._under_way = UnderWay(concurrent_loads)
        self._overrides = Overrides()
        self._closing = threading.Event()
        self._wanted: frozenset[str] = frozenset()
        self._files = LoadedFiles(folder)
        self._marks = marks or LoadMarks(None, folder)
        self._lock = threading.Lock()

    @property
    def wanted(self) -> frozenset[str]:
        """The models that should serve: those of the start and those loaded since, unless unloaded.

        Some of them may not be loaded.
        """
        return self._wanted

    def check(self) -> None:
        """See whether the folder can be read.

        Raises:
            SettingsError: it cannot.
        """
        model_names(self._folder)

    def restore_overrides(self, overrides: Mapping[str, Override]) -> None:
        """Keep what models were loaded with before this process began."""
        self._overrides.restore(overrides)

    def load_all(
        self,
        expected: Collection[str] = (),
        progress: Callable[[str], None] = lambda _: None,
        unloaded: Collection[str] = (),
        left_out: Collection[str] = (),
        held: Collection[str] | None = None,
    ) -> frozenset[str]:
        """Load every model of the folder, and return those that failed.

        Args:
            expected: models that should serve though the folder may not have them now.
            progress: told which model is loaded, in words; "" at the end.
            unloaded: models that are left as they were before this process began.
            left_out: models that fail without a try.
            held: of all models, those that this process is to have; None: all.

        Raises:
            SettingsError: the folder cannot be read.
        """
        try:
            found = self._found(held)
        except SettingsError as error:
            self._want(expected)
            for name in expected:
                self._tell(name, str(error))
            raise
        for name in found.intersection(unloaded):
            self._entries.put(ModelEntry(name, 0, State.UNAVAILABLE, UNLOADED))
        names = sorted(found.union(expected, self._overrides.names).difference(unloaded))
        self._want(names)
        for message, details in warnings_of(self._folder):
            log.warning(message, extra=details)
        failed = set(self._marks.left_out(names).union(left_out).intersection(names))
        for name in failed:
            self._entries.put(ModelEntry(name, 0, State.UNAVAILABLE, LEFT_OUT))
        try:
            for index, name in enumerate(names, 1):
                progress(f"loading {index} of {len(names)}: {name}")
                if name not in failed and not self._load_at_start(name, name in expected):
                    failed.add(name)
        except ShuttingDown:
            pass
        finally:
            progress("")
        return frozenset(failed)

    def _found(self, held: Collection[str] | None) -> frozenset[str]:
        names = frozenset(model_names(self._folder))
        return names if held is None else names.intersection(held)

    def load(
        self, name: str, override: Override | None = None, agreement: Agreement | None = None
    ) -> None:
        """Read a model's folder and load what changed there, all of it or nothing; blocks.

        Versions that serve keep serving until their successor is ready, and if it fails. What did
        not change is not touched.

        Args:
            name: of the model.
            override: holds until the next load; None: what is in the folder.
            agreement: with other processes that load it, too; None: there are none.

        Raises:
            InvalidInput: it cannot be loaded with that override, with the reason.
            MemoryBudgetExceeded: the files of the override are too large.
            ModelNotFound: no folder of that name.
            ModelNotReady: it cannot be loaded, with the reason.
            ModelUntrusted: its files are not what was sealed or signed.
            ShuttingDown: the repository is being closed.
        """
        with self._under_way.alone(name):
            if override is None:
                self._load(name, None, whole=True, agreement=agreement)
                self._overrides.keep(name, None)
                return
            placed = self._overrides.place(name, override)
            try:
                self._load(name, placed, whole=True, agreement=agreement)
            except BaseException as error:
                placed.discard()
                if isinstance(error, ModelNotReady):
                    raise InvalidInput(str(error)) from error
                raise
            self._overrides.keep(name, placed)

    def reload(self, name: str) -> None:
        """Load all of a model anew as it was loaded last, with its override; blocks.

        Raises:
            InferdError: as `load`.
        """
        with self._under_way.alone(name):
            self._load(name, self._overrides.of(name), whole=True, anew=True)

    def restore(self, name: str) -> None:
        """Load what can be served of a model again, unless it was unloaded meanwhile; blocks.

        Raises:
            ModelNotFound: no folder of that name.
            ModelNotReady: it cannot be loaded, with the reason; the one `FILES_ABSENT`: later.
            ShuttingDown: the repository is being closed.
        """
        with self._under_way.alone(name):
            if name in self._wanted:
                self._load(name, self._overrides.of(name), whole=False)

    def unload(self, name: str) -> None:
        """Stop serving a model after it finished what it has; blocks.

        Raises:
            ModelNotFound: nothing of that name was loaded.
        """
        with self._under_way.alone(name):
            versions = self._entries.versions(name)
            if not versions:
                raise ModelNotFound(f"model {name!r} is not known")
            # Before it goes, so that nobody calls the server unready for what it was told to do.
            self._want(but=name)
            self._retire(name, versions)
            self._overrides.keep(name, None)
            self._forget_gone(name)

    def close(self, timeout: float | None) -> bool:
        """Unload everything; the models get `timeout` seconds in all, and so do loads under way.

        Returns:
            False if an engine or a load is still at work, which cannot be interrupted, or an engine
            is not closed because others took all the time.
        """
        self._closing.set()
        alone = self._under_way.ended(timeout)
        until = math.inf if timeout is None else self._clock() + timeout
        handles = [entry.handle for entry in self.entries() if entry.handle is not None]
        for handle in handles:
            # All at once, so that they finish beside each other.
            if self._is_in_time(handle, until):
                handle.queue.close()
        ours = {id(handle) for handle in handles if self._entries.replace(*unloading(handle))}
        self._changed()
        for handle in handles:
            if self._is_in_time(handle, until):
                left = None if timeout is None else max(0.0, until - self._clock())
                self._finish(handle, left, id(handle) in ours)
        self._overrides.close()
        self._marks.forget()
        self._changed()
        return alone and all(handle.ended for handle in handles)

    def _is_in_time(self, handle: Handle, until: float) -> bool:
        """True for a version that is to be closed though everything ends.

        An idle one may need a thread to be closed on, and there may be a thousand of them.
        """
        return handle.arena.rows > 0 or self._clock() <= until

    def _state_changed(self) -> None:
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

    def choose(self, name: str, version: str) -> ModelEntry:
        """Return the version that a request would be sent to, serving or not.

        Raises:
            ModelNotFound: no such model.
            VersionNotFound: it has no such version.
        """
        return self._entries.choose(name, version)

    def entries(self) -> list[ModelEntry]:
        """Return every version of every model, sorted."""
        return self._entries.all()

    @property
    def labels(self) -> Labels:
        """Versions by label, of every model that has labels."""
        return self._entries.labels

    def _want(self, names: Collection[str] = (), but: str | None = None) -> None:
        """Note models that should serve from now on, and one that should serve no more."""
        with self._lock:
            self._wanted = self._wanted.union(names) - {but}

    def _load_at_start(self, name: str, expected: bool) -> bool:
        """Load a model; False if it failed, and it is loaded later then if that may help."""
        try:
            with self._under_way.alone(name):
                self._load(name, self._overrides.of(name), whole=False)
        except ShuttingDown:
            raise
        except Exception as error:
            where = {"model": name, "error": str(error)}
            log.error("a model failed to load", extra=where, exc_info=unexpected(error))
            absent = isinstance(error, InferdError) and error.reason in PASSING
            if expected or absent:
                self._is_missing(name)
            return False
        return True

    def _load(
        self,
        name: str,
        placed: Placed | None,
        *,
        whole: bool,
        anew: bool = False,
        agreement: Agreement | None = None,
    ) -> None:
        """Load a model that nobody else changes meanwhile.

        Args:
            name: of the model.
            placed: what is loaded instead of what is in the folder.
            whole: all that changed or nothing; otherwise what can be served.
            anew: what did not change is opened again, too.
            agreement: with other processes that load it, too; None: there are none.
        """
        source = self._read(name, placed)
        if source.without_effect:
            told = {"model": name, "fields": ", ".join(source.without_effect)}
            log.warning("config.pbtxt says what has no effect here", extra=told)
        changed = [v for v in source.versions if anew or not self._unchanged(source, v)]
        with self._under_way.loading(), self._marks.loading(name):
            loaded, failures = self._open(source, changed, whole)
        if failures and whole:
            self._discard(source, loaded, f"because version {numbers(failures)} failed")
        else:
            if agreement is not None:
                self._agree(source, loaded, agreement)
            # First, so that who is told of the version knows this, too.
            self._want([name])
            self._serve_all(source, loaded)
        for version, error in failures.items():
            raise self._refusal(source, version, error) from error
        self._retire(name, set(self._entries.versions(name)) - {*source.versions, *source.left})
        self._forget_gone(name)

    def _read(self, name: str, placed: Placed | None) -> ModelSource:
        try:
            there = name in model_names(self._folder)
        except SettingsError as error:
            self._tell(name, str(error))
            raise unreadable(name, error) from error
        if not there and (placed is None or placed.folder is None):
            self._forget_gone(name)
            self._tell(name, NOT_THERE)
            raise ModelNotFound(f"model {name!r} is {NOT_THERE}", reason=FILES_ABSENT)
        try:
            return placed.source(self._folder, name) if placed else read_source(self._folder, name)
        except SettingsError as error:
            self._tell(name, str(error), known=True)
            raise unreadable(name, error) from error

    def _tell(self, name: str, reason: str, known: bool = False) -> None:
        """Keep why a load was refused; of a name that need not be one of a model, nothing is."""
        if not self._entries.note(name, reason) and (known or name in self._wanted):
            self._entries.put(ModelEntry(name, 0, State.UNAVAILABLE, reason))

    def _unchanged(self, source: ModelSource, version: int) -> bool:
        """True if a version serves, from the very files and settings that are there now."""
        entry = self._entries.versions(source.name).get(version)
        if entry is None or entry.handle is None or entry.state is not State.READY:
            return False
        same = self._files.unchanged(source.name, version, source.versions[version])
        before = (entry.handle.config, entry.handle.declared)
        return same and before == (source.config_of(version), source.declared)

    def _open(
        self, source: ModelSource, versions: Iterable[int], whole: bool
    ) -> tuple[list[Handle], dict[int, Exception]]:
        """Open versions, which do not serve yet; return them, and why others could not be opened.

        Args:
            source: of the model.
            versions: to open.
            whole: stop at the first that fails.
        """
        loaded: list[Handle] = []
        failures: dict[int, Exception] = {}
        for version in versions:
            if whole and failures:
                break
            try:
                loaded.append(self._open_one(source, version))
            except ShuttingDown:
                self._discard(source, loaded, "because the server is shutting down")
                raise
            except Exception as error:
                where = {"model": source.name, "version": version, "error": str(error)}
                log.error("a version failed to load", extra=where, exc_info=unexpected(error))
                failures[version] = error
        return loaded, failures

    def _open_one(self, source: ModelSource, version: int) -> Handle:
        if self._closing.is_set():
            raise ShuttingDown("the server is shutting down")
        name = source.name
        if not self._serves(name, version):
            self._entries.put(ModelEntry(name, version, State.LOADING))
        log.info("loading", extra={"model": name, "version": version})
        states = self._files.look(source.versions[version])
        try:
            handle = self._loader.load(
                name,
                version,
                source.versions[version],
                source.config_of(version),
                self._lost,
                source.declared,
            )
        except Exception as error:
            self._refused(name, version, str(error))
            raise
        self._files.keep(name, version, states)
        return handle

    def _serves(self, name: str, version: int) -> bool:
        entry = self._entries.versions(name).get(version)
        return entry is not None and entry.handle is not None

    def _refused(self, name: str, version: int, reason: str) -> None:
        """Keep why a version could not be loaded; one that serves goes on."""
        if self._serves(name, version):
            self._entries.note(name, reason, version)
        else:
            self._entries.put(ModelEntry(name, version, State.UNAVAILABLE, reason))

    def _agree(self, source: ModelSource, loaded: Iterable[Handle], agreement: Agreement) -> None:
        """Let every process open its versions, and take requests for them before one tells so."""
        try:
            agreement.opened()
        except InferdError:
            self._discard(source, loaded, "because another process could not load it")
            raise
        for handle in loaded:
            if not self._serves(handle.name, handle.version):
                entry = ModelEntry(handle.name, handle.version, State.LOADING, handle=handle)
                self._entries.put(replace(entry, returning=True))
        agreement.taking()

    def _discard(self, source: ModelSource, loaded: Iterable[Handle], why: str) -> None:
        """Close what was opened, and is not to serve: a load is all or nothing."""
        for handle in loaded:
            # What serves in its place was loaded from other files.
            self._files.keep(source.name, handle.version, None)
            self._loader.unload(handle, None)
            self._refused(source.name, handle.version, f"not loaded, {why}")

    def _refusal(self, source: ModelSource, version: int, error: Exception) -> InferdError:
        """Return why a load is refused, in the words and with the reason that callers get."""
        name, path = source.name, source.versions[version]
        text = f"version {version} of model {name!r} cannot be loaded: {error}"
        if isinstance(error, UntrustedFiles):
            kind = ModelNotReady if error.reason in PASSING else ModelUntrusted
            return kind(text, reason=error.reason)
        if not self._files.missing(name, version, path):
            return ModelNotReady(text)
        return ModelNotReady(text, reason=FILES_ABSENT)

    def _serve_all(self, source: ModelSource, loaded: Iterable[Handle]) -> None:
        # Whatever a load before said: what is there now is what serves.
        self._entries.note(source.name, "")
        for handle in loaded:
            self._serve(handle)
        # The last, so that no label is at what does not serve yet.
        self._entries.label(source.name, source.labels)

    def _serve(self, handle: Handle) -> None:
        """Send requests to a handle from now on, and let its predecessor finish."""
        replaced = self._entries.put(
            ModelEntry(handle.name, handle.version, State.READY, "", handle)
        )
        log.info("loaded", extra=handle.described)
        if handle.lost:
            # Too early for `_lost` to find it.
            self._lost(handle)
        before = None if replaced is None else replaced.handle
        if before is not None and before is not handle:
            self._loader.unload(before, None)
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
                self._entries.put(ModelEntry(name, version, State.UNAVAILABLE, UNLOADED))

    def _forget_gone(self, name: str) -> None:
        """Forget the versions that do not serve and are not in the folder."""
        versions = self._entries.versions(name)
        gone = {
            version
            for version, entry in versions.items()
            if entry.handle is None and not holds(self._folder, name, version)
        }
        # Of a model that should serve something is always told.
        if gone and (name not in self._wanted or gone < set(versions)):
            self._entries.forget(name, gone)

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
        self._entries.put(ModelEntry(handle.name, handle.version, State.UNAVAILABLE, UNLOADED))

    def _lost(self, handle: Handle) -> None:
        entry = ModelEntry(handle.name, handle.version, State.UNAVAILABLE, handle.lost)
        if self._entries.replace(handle, entry):
            self._loader.forget(handle)
            self._was_lost(handle)


def unreadable(name: str, error: SettingsError) -> ModelNotReady:
    """Return why a model cannot be loaded whose folder cannot be read, or says what is wrong."""
    absent = error.reason or isinstance(error.__cause__, OSError)
    text = f"model {name!r} cannot be loaded: {error}"
    return ModelNotReady(text, reason=FILES_ABSENT if absent else "")


def numbers(versions: Iterable[int]) -> str:
    """Return versions with commas between."""
    return ", ".join(map(str, versions))


def unloading(handle: Handle) -> tuple[Handle, ModelEntry]:
    """Return a handle, and the entry that takes its place while it finishes."""
    return handle, ModelEntry(handle.name, handle.version, State.UNLOADING, handle=handle)
