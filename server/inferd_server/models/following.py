"""Following a store: what changes there is loaded, warmed, switched to and drained here."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from inferd_store.errors import AccessDenied, Damaged, NotThere, StoreError, Unreachable
from inferd_store.lease import Lease
from inferd_store.objects import Progress, open_objects
from inferd_store.record import Record, read_record
from inferd_store.store import Store, is_store, name_of, open_store

from inferd_server.errors import InferdError, ModelNotFound, SettingsError, ShuttingDown
from inferd_server.models.overrides import own_folder
from inferd_server.models.releases import Mirror, Wanted, step, wanted_of
from inferd_server.models.serving import Serving
from inferd_server.settings.model import Settings

log = logging.getLogger(__name__)
PREFIX = "inferd-models-"
"""Of the folder in which a store's releases are laid out."""
LEASE_S = 30.0
"""Seconds for which a server says what it uses."""
RENEWED_S = 10.0
FIRST_S, LONGEST_S = 2.0, 600.0
"""Until a version is tried again that could not be loaded, and ever later."""
MOST_DOUBLED = 16
Version = tuple[str, int]


def nothing(_: int) -> None:
    """Show no progress."""


class Served(Protocol):
    """The server whose models follow; `load` and `unload` block."""

    def load(self, name: str) -> None:
        """Read a model's folder anew and load what it asks for.

        Raises:
            InferdError: it cannot be loaded; what serves goes on.
        """

    def unload(self, name: str) -> None:
        """Stop serving a model.

        Raises:
            ModelNotFound: nothing of that name was loaded.
        """

    def ready(self) -> Collection[Version] | None:
        """Return the versions that serve; None until all were tried that are there at the start."""


@dataclass(slots=True)
class Model:
    """A model as it is mirrored."""

    record: Record
    wanted: Wanted
    serving: frozenset[int] = frozenset()
    labels: Mapping[str, int] = field(default_factory=dict)
    idle: dict[int, float] = field(default_factory=dict)
    """Versions that are kept warm, and since when."""
    failures: dict[int, float] = field(default_factory=dict)
    """Versions that should serve and do not, and when they are tried again."""


class Follower:
    """Keeps a server as its store wants it. All but `gauges` is called by one thread at a time."""

    def __init__(
        self,
        store: Store,
        mirror: Mirror,
        terms: Sequence[str],
        keep_warm: float,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Begin with no model.

        Args:
            store: that is followed.
            mirror: of it, which the server reads.
            terms: the setting `store_versions`.
            keep_warm: seconds for which a version stays loaded that serves no more.
            clock: monotonic seconds.
            wall: seconds since the epoch.
        """
        self._store = store
        self._mirror = mirror
        self._terms = terms
        self._keep_warm = keep_warm
        self._clock = clock
        self._wall = wall
        self._etags: dict[str, str] = {}
        self._models: dict[str, Model] = {}
        self._attempts: dict[Version, int] = {}
        self._server = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self._leased: tuple[Mapping[str, tuple[int, ...]], float] = {}, 0.0
        self._began = False
        self._trouble = ""
        self._no_leases = False

    def prepare(self, progress: Progress = nothing) -> None:
        """Lay out everything that should serve, before the server starts.

        Where the store does not answer, what it said the last time is what serves.

        Raises:
            StoreError: the store cannot be read.
        """
        for record in self._records_of_start():
            model = self._models[record.name] = Model(record, wanted_of(record, self._terms))
            for version in model.wanted.versions:
                try:
                    self._place(model, version, progress)
                except (StoreError, OSError) as error:
                    self._failed(record.name, model, version, error)
                    continue
                model.serving |= {version}
            model.labels = step(model.wanted, model.serving, {})
            self._write(record.name, model)
        self._lease()

    def _records_of_start(self) -> list[Record]:
        try:
            return list(self._changed_records())
        except (AccessDenied, Unreachable) as error:
            records = self._mirror.remembered()
            if not records:
                raise
            self._etags.clear()
            self._tell_trouble(str(error))
            return records

    def look(self, server: Served) -> None:
        """Look at the store once, and do what it asks for; errors are told, not raised."""
        if not self._begin(server):
            return
        try:
            for record in self._changed_records():
                self._take(record)
        except StoreError as error:
            self._tell_trouble(str(error))
        else:
            self._tell_trouble("")
        try:
            for name in list(self._models):
                self._follow(server, name)
        except ShuttingDown:
            return
        self._lease()

    def gauges(self) -> dict[str, float]:
        """Return what /metrics tells of the store."""
        failed = sum(len(model.failures) for model in list(self._models.values()))
        return {
            "inferd_store_failed_versions": float(failed),
            "inferd_store_unreachable": float(bool(self._trouble)),
        }

    def close(self) -> None:
        """Use nothing of the store any more."""
        with suppress(StoreError):
            if not self._no_leases:
                self._store.leases.tell(Lease(self._server, self._leased[0], self._wall()))
        self._mirror.close()

    def _begin(self, server: Served) -> bool:
        """Take in which versions were loaded at the start; False until that is known."""
        if self._began:
            return True
        ready = server.ready()
        if ready is None:
            return False
        for name, model in self._models.items():
            for version in sorted(model.serving):
                if (name, version) not in ready:
                    # The server has told why.
                    model.failures[version] = self._clock() + again_after(1)
        self._began = True
        return True

    def _take(self, record: Record) -> None:
        wanted = wanted_of(record, self._terms)
        model = self._models.setdefault(record.name, Model(record, wanted))
        # What failed may be tried at once: somebody did something about the model.
        model.record, model.wanted, model.failures = record, wanted, {}

    def _changed_records(self) -> Iterator[Record]:
        """Return the records that changed since they were read last."""
        for entry in self._store.heads():
            if self._etags.get(entry.key) == entry.etag:
                continue
            name = name_of(entry.key)
            try:
                data = self._store.objects.get(entry.key).data
                record = read_record(data, name)
            except (Damaged, NotThere) as error:
                # It keeps no other model from being followed.
                log.error("a model does not follow", extra={"model": name, "error": str(error)})
                self._etags[entry.key] = entry.etag
                continue
            self._etags[entry.key] = entry.etag
            self._mirror.remember(name, data)
            yield record

    def _follow(self, server: Served, name: str) -> None:
        """Bring one model to what is wanted of it, as far as it goes."""
        model = self._models[name]
        for version in sorted(set(model.wanted.versions)):
            if self._due(model, version):
                self._open(server, name, model, version)
        self._settle(server, name, model)

    def _due(self, model: Model, version: int) -> bool:
        """True if a version is to be loaded now."""
        if version in model.failures:
            return model.failures[version] <= self._clock()
        return version not in model.serving

    def _open(self, server: Served, name: str, model: Model, version: int) -> None:
        """Load a version beside those that serve, and let labels be at it that should."""
        serving, labels = model.serving, model.labels
        try:
            self._place(model, version)
            model.failures.pop(version, None)
            model.serving |= {version}
            model.labels = step(model.wanted, model.serving, model.labels)
            self._write(name, model)
            server.load(name)
        except ShuttingDown:
            raise
        except (InferdError, StoreError, OSError) as error:
            model.serving, model.labels = serving - {version}, labels
            self._failed(name, model, version, error)
            self._write_again(name, model)
            return
        self._attempts.pop((name, version), None)
        where = {"model": name, "version": version, "labels": labels_at(model.labels, version)}
        log.info("a release serves", extra=where)

    def _settle(self, server: Served, name: str, model: Model) -> None:
        """Let labels be where they should, and versions go that were kept warm for long enough."""
        now = self._clock()
        labels = step(model.wanted, model.serving - set(model.failures), model.labels)
        used = {*model.wanted.versions, *labels.values()}
        model.idle = {v: model.idle.get(v, now) for v in model.serving - used}
        over = {v for v, since in model.idle.items() if now - since >= self._keep_warm}
        model.failures = {v: f for v, f in model.failures.items() if v in model.wanted.versions}
        serving = model.serving - over
        if (serving, labels) == (model.serving, model.labels):
            return
        before, model.serving, model.labels = model.labels, serving, labels
        if labels != before:
            log.info("labels moved", extra={"model": name, "labels": dict(labels)})
        try:
            self._apply(server, name, model)
        except ShuttingDown:
            raise
        except (InferdError, OSError) as error:
            log.error("a model does not follow", extra={"model": name, "error": str(error)})
            model.labels = before
            model.serving |= over
            return
        for version in over:
            del model.idle[version]
            self._mirror.remove(name, version)

    def _apply(self, server: Served, name: str, model: Model) -> None:
        if model.serving:
            self._write(name, model)
            server.load(name)
            return
        with suppress(ModelNotFound):
            server.unload(name)
        self._mirror.forget(name)

    def _place(self, model: Model, version: int, progress: Progress = nothing) -> None:
        release = self._mirror.release(model.record.versions[version].manifest)
        self._mirror.place(model.record.name, version, release, progress)

    def _write(self, name: str, model: Model) -> None:
        if model.serving:
            left = sorted(set(model.failures) - model.serving)
            self._mirror.serve(name, Serving(sorted(model.serving), model.labels, left))

    def _write_again(self, name: str, model: Model) -> None:
        try:
            self._write(name, model)
        except OSError as error:
            log.error("a model does not follow", extra={"model": name, "error": str(error)})

    def _failed(self, name: str, model: Model, version: int, error: Exception) -> None:
        attempts = self._attempts.get((name, version), 0) + 1
        self._attempts[name, version] = attempts
        delay = again_after(attempts)
        model.failures[version] = self._clock() + delay
        where = {"model": name, "version": version, "error": str(error), "delay_s": delay}
        log.error("a release cannot be served; what serves goes on", extra=where)

    def _tell_trouble(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            log.error("the store cannot be read; what serves goes on", extra={"error": trouble})
        if self._trouble and not trouble:
            log.info("the store can be read again", extra={"store": self._store.address})
        self._trouble = trouble

    def _lease(self) -> None:
        """Say which versions are used, now and then and whenever they change."""
        used = {name: tuple(sorted(model.serving)) for name, model in self._models.items()}
        before, at = self._leased
        now = self._clock()
        if self._no_leases or (used == before and now - at < RENEWED_S):
            return
        self._leased = used, now
        try:
            self._store.leases.tell(Lease(self._server, used, self._wall() + LEASE_S))
        except StoreError as error:
            # A read-only mount, most likely; nobody removes anything through it either.
            self._no_leases = True
            log.info("the store is not told what serves", extra={"why": str(error)})


def again_after(attempts: int) -> float:
    """Return the seconds until a version is tried again that failed so often in a row."""
    return min(LONGEST_S, FIRST_S * 2.0 ** min(attempts - 1, MOST_DOUBLED))


def labels_at(labels: Mapping[str, int], version: int) -> str:
    """Return the labels at a version, as the log has them."""
    return ", ".join(sorted(name for name, at in labels.items() if name and at == version))


class FollowerThread:
    """Looks at a store every so often, on a thread of its own."""

    def __init__(self, follower: Follower, interval: float) -> None:
        """Prepare; nothing runs yet.

        Args:
            follower: prepared.
            interval: seconds; 0: it never looks.
        """
        self.follower = follower
        self._interval = interval
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, server: Served) -> None:
        """Follow from now on."""
        self._thread = threading.Thread(target=self._run, args=(server,), name="store", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Follow no more, and remove what was laid out."""
        self._ended.set()
        self.follower.close()

    def _run(self, server: Served) -> None:
        while self._interval and not self._ended.wait(self._interval):
            try:
                self.follower.look(server)
            except Exception:
                log.exception("a look at the store failed")


def opened(address: str) -> Store:
    """Return the store at an address, also one elsewhere that does not answer now.

    Raises:
        StoreError: there is none.
    """
    try:
        return open_store(address)
    except (AccessDenied, Unreachable):
        return Store(open_objects(address))


def follow(
    settings: Settings, environment: Mapping[str, str], progress: Progress = nothing
) -> tuple[Settings, FollowerThread | None]:
    """Return the settings of a server that follows a store, and what follows; None: there is none.

    Args:
        settings: checked.
        environment: of the process.
        progress: told of bytes that were laid out.

    Raises:
        SettingsError: the store cannot be read, or there is no room for its files.
    """
    given, models = settings.store, settings.repository
    address = given.model_store or str(models.model_repository)
    if not given.model_store and not is_store(address):
        return settings, None
    try:
        store = opened(address)
        folder = own_folder(Path(tempfile.gettempdir()), PREFIX)
        mirror = Mirror(folder, store, settings.store_folder(environment))
        follower = Follower(store, mirror, given.store_versions, given.store_keep_warm_s)
        follower.prepare(progress)
    except (StoreError, OSError) as error:
        raise SettingsError(f"model_store: {error}") from error
    links = (*models.link_folders, mirror.links_into)
    laid_out = models.model_copy(update={"model_repository": folder, "link_folders": links})
    named = given.model_copy(update={"model_store": store.address})
    return (
        settings.model_copy(update={"repository": laid_out, "store": named}),
        FollowerThread(follower, given.store_poll_s),
    )
