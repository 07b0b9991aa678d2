"""The releases that serve: which versions of a store, and their files as a repository has them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from inferd_store.blobs import BLOBS
from inferd_store.errors import Damaged, NotThere
from inferd_store.objects import Progress
from inferd_store.record import Record, read_record
from inferd_store.release import Release, StoredFile, digest_of, read_release
from inferd_store.store import Store
from inferd_store.transfer import fetch, verified

from inferd_server.models.serving import Serving, write_serving

USUAL = ("production", "stable")
"""Labels whose version serves requests that name none, most wanted first."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a model should serve."""

    versions: tuple[int, ...]
    """Sorted."""
    labels: Mapping[str, int]
    """At versions that should serve; "" is what serves requests that name none."""


def wanted_of(record: Record, terms: Sequence[str]) -> Wanted:
    """Return what of a model should serve.

    Args:
        record: of the model.
        terms: the setting `store_versions`.
    """
    there = sorted(record.versions)
    labels = {name: label.version for name, label in record.labels.items()}
    found: set[int] = set()
    for term in terms:
        found |= named_by(term, there, labels)
    versions = tuple(sorted(found & set(there)))
    at = {name: version for name, version in labels.items() if version in versions}
    asked = [term.removeprefix("@") for term in terms if term.startswith("@")]
    usual = next((name for name in (*asked, *USUAL) if name in at), None)
    return Wanted(versions, at if usual is None else {**at, "": at[usual]})


def named_by(term: str, there: Sequence[int], labels: Mapping[str, int]) -> set[int]:
    """Return the versions that one part of `store_versions` names.

    Args:
        term: such as "latest:2".
        there: versions, sorted.
        labels: of the model.
    """
    kind, _, count = term.partition(":")
    if kind == "latest":
        return set(there[-int(count or 1) :])
    if term == "all":
        return set(there)
    if term == "labels":
        return set(labels.values()) or set(there[-1:])
    if term.startswith("@"):
        return {labels[term[1:]]} if term[1:] in labels else set()
    return {int(term)}


def step(wanted: Wanted, serving: Collection[int], before: Mapping[str, int]) -> Mapping[str, int]:
    """Return where labels are to be while not all that is wanted serves: moved as far as it does.

    Args:
        wanted: in the end.
        serving: versions that serve.
        before: where labels are now.
    """
    return {
        label: version if version in serving else before.get(label, version)
        for label, version in wanted.labels.items()
    }


def keep(path: Path, data: bytes) -> None:
    """Write a small file, all of it at once; where there is no room, it is not kept."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.{os.getpid()}")
        beside.write_bytes(data)
        beside.rename(path)


class Mirror:
    """A folder laid out as a repository, of links to the files of a store. Used by one thread."""

    def __init__(self, folder: Path, store: Store, cache: Path) -> None:
        """Begin with no model.

        Args:
            folder: empty.
            store: that is mirrored.
            cache: for the files of a store that is not on this host.
        """
        self.folder = folder
        self._store = store
        self._cache = cache
        self._checked: dict[str, tuple[int, int, int]] = {}

    def release(self, manifest: str) -> Release:
        """Return the release of a manifest, which is kept where the store is not on this host.

        Raises:
            StoreError: it cannot be had.
        """
        objects, kept = self._store.objects, self._cache / "blobs" / manifest
        if objects.path("") is None and kept.is_file():
            with suppress(Damaged):
                return read_release(kept.read_bytes(), manifest)
        data = objects.get(BLOBS + manifest).data
        if objects.path("") is None:
            keep(kept, data)
        return read_release(data, manifest)

    def remember(self, name: str, data: bytes) -> None:
        """Keep a model's record for a start while a store elsewhere does not answer."""
        if self._store.objects.path("") is None:
            keep(self._records / f"{name}.json", data)

    def remembered(self) -> list[Record]:
        """Return the records that were kept; those that cannot be read are left out."""
        found = []
        for path in sorted(self._records.glob("*.json")):
            with suppress(Damaged, OSError):
                found.append(read_record(path.read_bytes(), path.stem))
        return found

    @property
    def _records(self) -> Path:
        return self._cache / "records" / digest_of(self._store.address.encode())

    @property
    def links_into(self) -> Path:
        """The folder that the links lead into."""
        there = self._store.objects.path(BLOBS.rstrip("/"))
        return (self._cache / "blobs" if there is None else there).resolve()

    def place(self, name: str, version: int, release: Release, progress: Progress) -> None:
        """Lay out the files of a version, whole and checked.

        Raises:
            StoreError: they cannot be had, or are not what their digests say.
            OSError: there is no room for them.
        """
        target = self.folder / name / str(version)
        if target.exists():
            return
        files = {file.path: self._file(file, progress) for file in release.files}
        # As a version it is there once it is whole.
        unfinished = self.folder / name / f".{version}"
        shutil.rmtree(unfinished, ignore_errors=True)
        for path, content in files.items():
            link = unfinished / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(content)
        unfinished.rename(target)

    def serve(self, name: str, serving: Serving) -> None:
        """Say what serves of a model.

        Raises:
            OSError: there is no room.
        """
        write_serving(self.folder / name, serving)

    def remove(self, name: str, version: int) -> None:
        """Remove a version."""
        shutil.rmtree(self.folder / name / str(version), ignore_errors=True)

    def forget(self, name: str) -> None:
        """Remove a model."""
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, file: StoredFile, progress: Progress) -> Path:
        """Return where a file is on this host, once its content is checked."""
        objects = self._store.objects
        there = objects.path(BLOBS + file.digest)
        path = self._cache / "blobs" / file.digest if there is None else there.resolve()
        if self._known(path):
            return path
        if there is None and verified(path, file):
            progress(file.size)
        elif there is None:
            path.unlink(missing_ok=True)
            fetch(objects, file, path, progress)
        elif not path.exists():
            raise NotThere(f"{file.path}: {path} is not there")
        elif not verified(path, file):
            raise Damaged(f"{file.path} in {objects.address} is not what its digest says")
        status = path.stat()
        self._checked[path.name] = (status.st_ino, status.st_mtime_ns, status.st_size)
        return path

    def _known(self, path: Path) -> bool:
        try:
            status = path.stat()
        except OSError:
            return False
        now = status.st_ino, status.st_mtime_ns, status.st_size
        return self._checked.get(path.name) == now
