"""The entries of all models: of every version its state, and the handle that serves it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import Protocol, TypeAlias

from inferd_server.errors import (
    InferdError,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    VersionNotFound,
)
from inferd_server.models.layout import is_version
from inferd_server.models.version import Handle
from inferd_server.threads import Pauses

Labels: TypeAlias = Mapping[str, Mapping[str, int]]
"""Versions by model and label; the label "" is what serves requests that name no version."""
LABEL = "@"
"""Begins a label where a version is named, and follows the name of a model before one."""
UNLOADED = "unloaded"
"""The reason of a version that somebody took out of service."""
LEFT_OUT = "left out, because processes died while it was loaded; RepositoryModelLoad tries again"
"""The reason of a model that is not loaded by itself any more."""


class State(Enum):
    """States of a model version, with the protocol's names."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"
    UNLOADING = "UNLOADING"


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model version: where it stands and why. Version 0: none could be named.

    The reason of one that serves is why the last load of it was refused.
    """

    name: str
    version: int
    state: State
    reason: str = ""
    handle: Handle | None = None
    returning: bool = False
    """True while requests are taken and wait: once its process died, until the next one serves it
    or cannot; and while other processes that load it are not as far."""

    @property
    def takes(self) -> bool:
        """True if requests may be sent to it, to run now or soon."""
        return self.handle is not None and (self.state is State.READY or self.returning)


def not_served(entry: ModelEntry, version: str) -> InferdError:
    """Return why a version does not serve: whoever repeats a call to one unloaded does so in vain.

    Args:
        entry: that was chosen.
        version: that the caller named; "" for none.
    """
    if entry.state is State.UNLOADING or entry.reason == UNLOADED:
        over = "is being unloaded" if entry.state is State.UNLOADING else "was unloaded"
        if version:
            return VersionNotFound(f"version {version} of model {entry.name!r} {over}")
        return ModelNotFound(f"model {entry.name!r} {over}")
    why = f": {entry.reason}" if entry.reason else ""
    return ModelNotReady(f"model {entry.name!r} is {entry.state.value}{why}")


class Models(Protocol):
    """What the front knows of the models, wherever they are."""

    def resolve(self, name: str, version: str) -> Handle:
        """Return the handle for a request; "" takes the highest version that takes any.

        Raises:
            ModelNotFound: no such model.
            VersionNotFound: it has no such version.
            ModelNotReady: it is known and not serving.
        """

    def choose(self, name: str, version: str) -> ModelEntry:
        """Return the version that a request would be sent to, serving or not.

        Raises:
            ModelNotFound: no such model.
            VersionNotFound: it has no such version.
        """

    def entries(self) -> list[ModelEntry]:
        """Return every version of every model, sorted."""


def gauges(entries: Iterable[ModelEntry]) -> Mapping[tuple[str, str, int], float]:
    """Return what the metrics say of every loaded version at this moment."""
    found, pause = dict[tuple[str, str, int], float](), Pauses()
    for entry in entries:
        pause()
        if entry.handle is not None:
            found.update(entry.handle.gauges)
    return found


class Entries:
    """All model versions. Every method may be called from any thread."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """Begin with none.

        Args:
            changed: called after any state changed, on the thread that changed it.
        """
        self._changed = changed
        self._models: Mapping[str, Mapping[int, ModelEntry]] = {}
        self._labels: Labels = {}
        self._lock = threading.Lock()

    def all(self) -> list[ModelEntry]:
        """Return every version of every model, sorted."""
        models = self._models
        return [
            models[name][version] for name in sorted(models) for version in sorted(models[name])
        ]

    def versions(self, name: str) -> Mapping[int, ModelEntry]:
        """Return the versions of a model; a mapping that never changes."""
        return self._models.get(name, {})

    def resolve(self, name: str, version: str) -> Handle:
        """Return the handle that serves a request.

        Raises:
            InvalidInput: the version is no number of one.
            ModelNotFound: nothing is known of the model, or it was unloaded.
            VersionNotFound: the version named is not there, or was unloaded.
            ModelNotReady: it is known and not serving.
        """
        entry = self.choose(name, version)
        if entry.handle is None or not entry.takes:
            raise not_served(entry, version)
        return entry.handle

    @property
    def labels(self) -> Labels:
        """Versions by label, of every model that has labels; a mapping that never changes."""
        return self._labels

    def label(self, name: str, labels: Mapping[str, int]) -> None:
        """Let all labels of a model be at these versions from now on, in one step."""
        with self._lock:
            before = self._labels.get(name, {})
            if before == labels:
                return
            self._labels = {**self._labels, name: dict(labels)}
        self._changed()

    def set_all(self, entries: Iterable[ModelEntry], labels: Labels | None = None) -> None:
        """Forget what is known, and know these; without `labels` they stay as they are."""
        models: dict[str, dict[int, ModelEntry]] = {}
        for entry in entries:
            models.setdefault(entry.name, {})[entry.version] = entry
        with self._lock:
            self._models = models
            self._labels = self._labels if labels is None else labels
        self._changed()

    def choose(self, name: str, version: str) -> ModelEntry:
        """Choose the version that serves a request.

        Raises:
            InvalidInput: the version is no number of one.
            ModelNotFound: nothing is known of the model.
            VersionNotFound: the version named is not there.
        """
        models = self._models
        if name not in models and not version and LABEL in name:
            # NAME@LABEL, where nothing is called that.
            name, _, label = name.rpartition(LABEL)
            version = LABEL + label
        if name not in models:
            known = f"known are {', '.join(sorted(models))}" if models else "none is"
            raise ModelNotFound(f"model {name!r} is not known; {known}", facts={"model": name})
        return choose(name, models[name], version, self._labels.get(name, {}))

    def put(self, entry: ModelEntry) -> ModelEntry | None:
        """Set an entry and return the one that it replaces."""
        with self._lock:
            before = self.versions(entry.name).get(entry.version)
            self._set(entry)
        self._changed()
        return before

    def replace(self, handle: Handle, entry: ModelEntry) -> bool:
        """Set an entry in the place of a handle that is ready; False if another came first.

        Whoever replaces a handle closes it, so that it is closed once.
        """
        with self._lock:
            before = self.versions(entry.name).get(entry.version)
            if before is None or before.handle is not handle or before.state is not State.READY:
                return False
            self._set(entry)
        self._changed()
        return True

    def note(self, name: str, reason: str, version: int | None = None) -> bool:
        """Keep why a load of a model, or of one version, was refused; False if none is known.

        What is loading or unloading tells of itself; "" forgets what was told of those that serve.
        """
        with self._lock:
            known = self.versions(name)
            told = {
                number: replace(entry, reason=reason)
                for number, entry in known.items()
                if version in (None, number) and _can_note(entry, reason)
            }
            if told:
                self._models = {**self._models, name: {**known, **told}}
        if told:
            self._changed()
        return bool(known)

    def forget(self, name: str, versions: Iterable[int]) -> None:
        """Forget these versions of a model, and the model where none is left."""
        with self._lock:
            left = {v: e for v, e in self.versions(name).items() if v not in set(versions)}
            others = {other: known for other, known in self._models.items() if other != name}
            self._models = {**others, name: left} if left else others
            if not left:
                self._labels = {n: one for n, one in self._labels.items() if n != name}
        self._changed()

    def _set(self, entry: ModelEntry) -> None:
        # New mappings each time, so that reading needs no lock.
        versions = {v: e for v, e in self.versions(entry.name).items() if v}
        self._models = {**self._models, entry.name: {**versions, entry.version: entry}}


def _can_note(entry: ModelEntry, reason: str) -> bool:
    states = (State.READY, State.UNAVAILABLE) if reason else (State.READY,)
    return entry.state in states and entry.reason != reason


def choose(
    name: str,
    versions: Mapping[int, ModelEntry],
    version: str,
    labels: Mapping[str, int] = MappingProxyType({}),
) -> ModelEntry:
    """Choose among the versions of a model.

    Args:
        name: of the model.
        versions: that are known.
        version: a number, "@label", or "": the one that a label says, or where none does the
            highest that takes requests.
        labels: of the model.

    Raises:
        InvalidInput: the version is no number of one.
        ModelNotReady: a label is at a version that is not loaded yet.
        VersionNotFound: the version named is not there.
    """
    if not version:
        if labels.get("") in versions:
            return versions[labels[""]]
        taking = [number for number, entry in versions.items() if entry.takes]
        return versions[max(taking or versions)]
    if version.startswith(LABEL):
        return _labelled(name, versions, version.removeprefix(LABEL), labels)
    if not is_version(version):
        raise InvalidInput(
            f"model {name!r}: {version!r} is no version; 1, 2, 3, ... was expected, or none"
        )
    known = {str(number): entry for number, entry in versions.items() if number}
    if version not in known:
        there = f"it has {', '.join(sorted(known, key=int))}" if known else "it has none"
        raise VersionNotFound(f"model {name!r} has no version {version!r}; {there}")
    return known[version]


def _labelled(
    name: str, versions: Mapping[int, ModelEntry], label: str, labels: Mapping[str, int]
) -> ModelEntry:
    if not label or label not in labels:
        known = ", ".join(sorted(filter(None, labels)))
        there = f"it has {known}" if known else "it has none"
        raise VersionNotFound(f"model {name!r} has no label {label!r}; {there}")
    number = labels[label]
    if number not in versions:
        # Here, or in the worker that has the model, it is about to be loaded.
        raise ModelNotReady(
            f"model {name!r}: label {label!r} is at version {number}, not loaded yet"
        )
    return versions[number]
