"""The releases of the store that a server follows: read, and changed, through its service."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from inferd.v1 import releases_pb2 as messages

from inferd_client.operations import Operation

PART = 2**20
"""Bytes of a file that are sent at a time."""
Json = Any
Event = Mapping[str, Any]
"""An event of the audit log: id, time, who, what, model, version, label, before, why, sequence."""


@dataclass(frozen=True, slots=True)
class NewRelease:
    """What is added, and what is said of it; texts as `inferd models add` takes them."""

    files: Mapping[str, Path]
    """By their paths in the version's folder, such as "model.onnx"."""
    commit: str = ""
    notes: str = ""
    metrics: Sequence[str] = ()
    bounds: Sequence[str] = ()
    parents: Sequence[str] = ()
    tags: Sequence[str] = ()
    tolerance: str = ""


@dataclass(frozen=True, slots=True)
class Releases:
    """What `inferd models` does, through a server. Raises what every call raises."""

    send: Callable[[Operation[Any]], Any]
    """Makes one call."""
    who: str = ""
    """Who changes something; a server that knows who calls says that instead."""
    why: str = ""
    progress: Callable[[int], None] = field(default=lambda _: None)
    """Told of bytes that were sent."""

    def models(self) -> Json:
        """Return every model with its versions and labels."""
        return self._read("ListReleases", messages.ListReleasesRequest())

    def versions(self, name: str) -> Json:
        """Return every version of a model."""
        return self._read("ShowReleases", messages.ShowReleasesRequest(name=name))

    def version(self, name: str, version: str) -> Json:
        """Return one version by its number, "latest" or "@label"."""
        asked = messages.ShowReleasesRequest(name=name, version=version)
        return self._read("ShowReleases", asked)

    def diff(self, name: str, before: str, after: str) -> Json:
        """Return in what two versions differ."""
        asked = messages.DiffReleasesRequest(name=name, before=before, after=after)
        return self._read("DiffReleases", asked)

    def log(self, name: str = "") -> Json:
        """Return who did what, when and why."""
        return self._read("ReadReleaseLog", messages.ReadReleaseLogRequest(name=name))

    def promote(self, name: str, version: str, label: str, bounds: Sequence[str]) -> Event:
        """Move a label to a version that passes."""
        asked = messages.PromoteReleaseRequest(
            name=name, version=version, label=label, bounds=bounds, by=self._by()
        )
        return self._change("PromoteRelease", asked)

    def rollback(self, name: str, label: str) -> Event:
        """Move a label back to where it was before."""
        asked = messages.RollbackReleaseRequest(name=name, label=label, by=self._by())
        return self._change("RollbackRelease", asked)

    def move(self, name: str, label: str, version: str) -> Event:
        """Move a label without a look at the version."""
        asked = messages.LabelReleaseRequest(name=name, label=label, version=version, by=self._by())
        return self._change("LabelRelease", asked)

    def unlabel(self, name: str, label: str) -> Event:
        """Remove a label."""
        asked = messages.LabelReleaseRequest(name=name, label=label, by=self._by())
        return self._change("LabelRelease", asked)

    def remove(self, name: str, version: str) -> Event:
        """Remove a version that nothing uses."""
        asked = messages.RemoveReleaseRequest(name=name, version=version, by=self._by())
        return self._change("RemoveRelease", asked)

    def add(self, name: str, release: NewRelease) -> Event:
        """Send the files of a release, have them checked, and added."""
        digests = {path: digest_of(file) for path, file in release.files.items()}
        for path, file in release.files.items():
            self._upload(digests[path], file)
        asked = messages.AddReleaseRequest(
            name=name,
            files=[
                messages.ReleaseFile(path=path, digest=digest) for path, digest in digests.items()
            ],
            by=self._by(),
            commit=release.commit,
            notes=release.notes,
            metrics=release.metrics,
            bounds=release.bounds,
            parents=release.parents,
            tags=release.tags,
            tolerance=release.tolerance,
        )
        return self._change("AddRelease", asked)

    def prune(
        self, names: Sequence[str], last: int | None, days: float | None, apply: bool
    ) -> Json:
        """Remove the versions that a rule does not keep, or tell which those would be."""
        asked = messages.PruneReleasesRequest(
            names=names, keep_last=last, keep_days=days, apply=apply, by=self._by()
        )
        return self._read("PruneReleases", asked, repeatable=False)

    def backup(self, place: str, names: Sequence[str], verify: bool) -> Json:
        """Have a backup made, in a place that the server allows."""
        asked = messages.BackupReleasesRequest(
            place=place, names=names, verify=verify, by=self._by()
        )
        return self._read("BackupReleases", asked, repeatable=False)

    def backups(self, place: str) -> Json:
        """Return the backups in such a place."""
        return self._read("ListBackups", messages.ListBackupsRequest(place=place))

    def _upload(self, digest: str, path: Path) -> None:
        """Send a file, but for what the server has of it already."""
        there = self._part(digest, 0, b"")
        self.progress(there)
        with path.open("rb") as file:
            file.seek(there)
            while data := file.read(PART):
                there = self._part(digest, file.tell() - len(data), data)
                self.progress(len(data))
                if there != file.tell():
                    file.seek(there)

    def _part(self, digest: str, offset: int, data: bytes) -> int:
        asked = messages.UploadReleaseFileRequest(digest=digest, offset=offset, data=data)
        size: int = self.send(Operation("UploadReleaseFile", asked, lambda answer: answer.size))
        return size

    def _by(self) -> messages.ChangedBy:
        return messages.ChangedBy(who=self.who, why=self.why)

    def _read(self, method: str, asked: Message, repeatable: bool = True) -> Json:
        return self.send(
            Operation(method, asked, lambda answer: json.loads(answer.json), repeatable=repeatable)
        )

    def _change(self, method: str, asked: Message) -> Event:
        event: Event = self.send(Operation(method, asked, read_event, repeatable=False))
        return event


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_event(answer: Any) -> Event:
    """Return the event of an answer as the audit log prints it."""
    event = answer.event
    return {field.name: getattr(event, field.name) for field in event.DESCRIPTOR.fields}
