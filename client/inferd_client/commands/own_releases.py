"""The releases of a store that this process reads and changes itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from inferd_client.releases import Event, NewRelease

if TYPE_CHECKING:
    from inferd_seal.trusted_files import Demands
    from inferd_store.release import About
    from inferd_store.store import By, Store

Json = Any


@dataclass(frozen=True, slots=True)
class OwnReleases:
    """What `inferd models` does, on a store. Raises StoreError."""

    address: str
    """Of the store."""
    by: By
    progress: Callable[[int], None]
    """Told of bytes that were moved."""
    demands: Demands
    """Of the files of models that are opened, and where their keys are."""

    @property
    def store(self) -> Store:
        """The store.

        Raises:
            StoreError: there is none.
        """
        from inferd_store.store import open_store

        return open_store(self.address)

    def models(self) -> Json:
        """Return every model with its versions and labels."""
        from inferd_store import views

        return views.models(self.store)

    def versions(self, name: str) -> Json:
        """Return every version of a model."""
        from inferd_store import views

        return views.versions(self.store, name)

    def version(self, name: str, version: str) -> Json:
        """Return one version by its number, "latest" or "@label"."""
        from inferd_store import views

        return views.version(self.store, name, version)

    def diff(self, name: str, before: str, after: str) -> Json:
        """Return in what two versions differ."""
        from inferd_store import views

        return views.diff(self.store, name, before, after)

    def log(self, name: str = "") -> Json:
        """Return who did what, when and why."""
        from inferd_store import views

        return views.log(self.store, name)

    def promote(self, name: str, version: str, label: str, bounds: Sequence[str]) -> Event:
        """Move a label to a version that passes."""
        from inferd_store.checking import read_bounds
        from inferd_store.promoting import promote

        wanted, by, progress = read_bounds(bounds), self.by, self.progress
        moved = promote(self.store, name, version, label, by, wanted, progress, self.demands)
        return asdict(moved)

    def rollback(self, name: str, label: str) -> Event:
        """Move a label back to where it was before."""
        return asdict(self.store.rollback(name, label, self.by))

    def move(self, name: str, label: str, version: str) -> Event:
        """Move a label without a look at the version."""
        return asdict(self.store.move(name, label, version, self.by))

    def unlabel(self, name: str, label: str) -> Event:
        """Remove a label."""
        return asdict(self.store.unlabel(name, label, self.by))

    def remove(self, name: str, version: str) -> Event:
        """Remove a version that nothing uses."""
        return asdict(self.store.remove(name, version, self.by))

    def prune(
        self, names: Sequence[str], last: int | None, days: float | None, apply: bool
    ) -> Json:
        """Remove the versions that a rule does not keep, or tell which those would be."""
        from inferd_store import retention

        store = self.store
        fates = retention.retain(store, names, retention.Rule(last, days), time.time())
        if apply:
            fates = retention.remove(store, fates, self.by)
        return [asdict(one) for one in fates]

    def add(self, name: str, release: NewRelease) -> Event:
        """Check a release, and add it; a store is made where nothing is."""
        from inferd_store.adding import Draft
        from inferd_store.promoting import checked
        from inferd_store.store import open_store

        about = about_of(release, self.by.who)
        made, sources = checked(name, Draft(release.files), about, self.demands)
        store = open_store(self.address, create=True)
        files = sources.files
        return asdict(store.add(name, made, files, self.by, self.progress, sources.check))


def about_of(release: NewRelease, author: str) -> About:
    """Return what is said of a release, read from its texts.

    Raises:
        Refused: one cannot be read.
    """
    from inferd_store.adding import pairs
    from inferd_store.checking import read_bounds, read_number
    from inferd_store.errors import Refused
    from inferd_store.record import VERSION
    from inferd_store.release import About

    if wrong := [one for one in release.parents if not VERSION.fullmatch(one)]:
        raise Refused(f"--parent {wrong[0]}: the number of a version was expected")
    return About(
        author=author,
        commit=release.commit,
        notes=release.notes,
        metrics={n: read_number(n, value) for n, value in pairs(release.metrics).items()},
        bounds=read_bounds(release.bounds),
        parents=tuple(map(int, release.parents)),
        tags=tuple(release.tags),
        tolerance=read_number("--tolerance", release.tolerance),
    )
