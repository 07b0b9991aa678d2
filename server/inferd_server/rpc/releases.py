"""Methods on the releases of the store that this server follows."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path, PurePosixPath

from inferd.v1 import releases_pb2 as messages
from inferd_store import errors as store_errors
from inferd_store import retention, views
from inferd_store.backups import open_backups
from inferd_store.errors import StoreError
from inferd_store.record import Event
from inferd_store.retention import Rule
from inferd_store.store import By, Store, open_store
from inferd_store.transfer import digest_of_file

from inferd_server.errors import (
    InferdError,
    InvalidInput,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from inferd_server.settings.security import SealSettings

ANONYMOUS = "anonymous"
"""Who did something, where nobody says so."""
CHECK_S = 600.0
"""Seconds that the check of a release may take."""
BACKUP_S = 6 * 3600.0
"""Seconds that a backup may take."""
DIGEST = re.compile(r"[0-9a-f]{64}")
STAGING = "uploads"
KINDS: Mapping[type[StoreError], type[InferdError]] = {
    store_errors.NotThere: NotFound,
    store_errors.Refused: InvalidInput,
    store_errors.Conflict: InvalidInput,
    store_errors.StoreFull: ResourceExhausted,
    store_errors.ReadOnly: PermissionDenied,
}
"""What the errors of a store are to callers; all others are UNAVAILABLE."""
Run = Callable[[Sequence[str], float], "subprocess.CompletedProcess[str]"]


def run_command(arguments: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run `inferd models` in a process of its own: what opens a model may end with it."""
    return subprocess.run(
        [sys.executable, "-m", "inferd_client", "models", *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


class Releases:
    """Reads and changes the store. Every method blocks, and may be called from any thread."""

    def __init__(
        self,
        address: str,
        cache: Path,
        places: Collection[str] = (),
        trust: SealSettings | None = None,
        run: Run = run_command,
    ) -> None:
        """Keep where the store is; nothing is asked yet.

        Args:
            address: of the store; "" where this server follows none.
            cache: folder that what is uploaded is kept in until it is added.
            places: where callers may have backups made.
            trust: what is demanded of models, and where their keys are.
            run: runs `inferd models` with arguments, for some seconds.
        """
        self._address = address
        self._places = places
        self._trust = trust or SealSettings()
        self._staging = cache / STAGING
        self._run = run

    def list(self, _: messages.ListReleasesRequest, __: str) -> messages.ListReleasesResponse:
        """Tell of every model."""
        with self._store() as store:
            return messages.ListReleasesResponse(json=json.dumps(views.models(store)))

    def show(self, request: messages.ShowReleasesRequest, _: str) -> messages.ShowReleasesResponse:
        """Tell of the versions of a model, or of one of them."""
        with self._store() as store:
            if request.version:
                return messages.ShowReleasesResponse(
                    json=json.dumps(views.version(store, request.name, request.version))
                )
            return messages.ShowReleasesResponse(
                json=json.dumps(views.versions(store, request.name))
            )

    def diff(self, request: messages.DiffReleasesRequest, _: str) -> messages.DiffReleasesResponse:
        """Tell in what two versions differ."""
        with self._store() as store:
            return messages.DiffReleasesResponse(
                json=json.dumps(views.diff(store, request.name, request.before, request.after))
            )

    def log(
        self, request: messages.ReadReleaseLogRequest, _: str
    ) -> messages.ReadReleaseLogResponse:
        """Tell who did what."""
        with self._store() as store:
            return messages.ReadReleaseLogResponse(json=json.dumps(views.log(store, request.name)))

    def promote(
        self, request: messages.PromoteReleaseRequest, who: str
    ) -> messages.PromoteReleaseResponse:
        """Move a label to a version that passes."""
        flags = [f"--to={request.label}", *(f"--require={bound}" for bound in request.bounds)]
        moved = self._command("promote", flags, request.by, who, request.name, request.version)
        return messages.PromoteReleaseResponse(event=moved)

    def rollback(
        self, request: messages.RollbackReleaseRequest, who: str
    ) -> messages.RollbackReleaseResponse:
        """Move a label back to where it was before."""
        with self._store() as store:
            return messages.RollbackReleaseResponse(
                event=event(store.rollback(request.name, request.label, by(request.by, who)))
            )

    def label(
        self, request: messages.LabelReleaseRequest, who: str
    ) -> messages.LabelReleaseResponse:
        """Move a label without a look at the version, or remove it."""
        name, label, changed = request.name, request.label, by(request.by, who)
        with self._store() as store:
            if request.version:
                return messages.LabelReleaseResponse(
                    event=event(store.move(name, label, request.version, changed))
                )
            return messages.LabelReleaseResponse(event=event(store.unlabel(name, label, changed)))

    def remove(
        self, request: messages.RemoveReleaseRequest, who: str
    ) -> messages.RemoveReleaseResponse:
        """Remove a version that nothing uses."""
        with self._store() as store:
            return messages.RemoveReleaseResponse(
                event=event(store.remove(request.name, request.version, by(request.by, who)))
            )

    def upload(
        self, request: messages.UploadReleaseFileRequest, _: str
    ) -> messages.UploadReleaseFileResponse:
        """Take a part of a file; whoever was cut off asks how much is there, and goes on."""
        with self._store():
            path = self._staged(request.digest)
        try:
            self._staging.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if request.data and file.tell() == request.offset:
                    file.write(request.data)
                return messages.UploadReleaseFileResponse(size=file.tell())
        except OSError as error:
            text = f"what is uploaded cannot be written: {error.strerror}"
            raise ResourceExhausted(text) from error

    def add(self, request: messages.AddReleaseRequest, who: str) -> messages.AddReleaseResponse:
        """Check what was uploaded, and add it."""
        flags = [
            f"--commit={request.commit}",
            f"--notes={request.notes}",
            f"--tolerance={request.tolerance or '1e-4'}",
            *(f"--metric={text}" for text in request.metrics),
            *(f"--require={text}" for text in request.bounds),
            *(f"--parent={text}" for text in request.parents),
            *(f"--tag={text}" for text in request.tags),
        ]
        with self._store():
            folder = self._folder(request.files)
        try:
            moved = self._command("add", flags, request.by, who, request.name, str(folder))
            return messages.AddReleaseResponse(event=moved)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def prune(
        self, request: messages.PruneReleasesRequest, who: str
    ) -> messages.PruneReleasesResponse:
        """Remove the versions that a rule does not keep."""
        last = request.keep_last if request.HasField("keep_last") else None
        days = request.keep_days if request.HasField("keep_days") else None
        with self._store() as store:
            fates = retention.retain(store, request.names, Rule(last, days), time.time())
            if request.apply:
                fates = retention.remove(store, fates, by(request.by, who))
        told = json.dumps([asdict(fate) for fate in fates])
        return messages.PruneReleasesResponse(json=told)

    def backup(
        self, request: messages.BackupReleasesRequest, who: str
    ) -> messages.BackupReleasesResponse:
        """Make a backup, in a process of its own: it reads much."""
        flags = [*(["--verify"] if request.verify else ()), *self._whose(request.by, who)]
        names = (self._place(request.place), *request.names)
        told = self._operate("backup", flags, names, BACKUP_S)
        return messages.BackupReleasesResponse(json=told)

    def backups(self, request: messages.ListBackupsRequest, _: str) -> messages.ListBackupsResponse:
        """Tell of the backups in a place."""
        place = self._place(request.place)
        with self._store():
            found = views.backups(open_backups(place, time.time))
        return messages.ListBackupsResponse(json=json.dumps(found))

    def _place(self, place: str) -> str:
        """Return a place for backups that callers may name.

        Raises:
            PermissionDenied: it is not one.
        """
        if place not in self._places:
            allowed = ", ".join(self._places) or "nowhere: its setting store_backups is empty"
            raise PermissionDenied(f"this server makes no backups in {place!r}; it may: {allowed}")
        return place

    def _folder(self, files: Sequence[messages.ReleaseFile]) -> Path:
        """Return a folder with files that were uploaded.

        Raises:
            InvalidInput: one was not, or not whole, or its path leads elsewhere.
        """
        for file in files:
            path = PurePosixPath(file.path)
            if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in file.path:
                raise InvalidInput(f"{file.path!r} is no path in the folder of a version")
            staged = self._staged(file.digest)
            if not staged.is_file() or digest_of_file(staged) != file.digest:
                staged.unlink(missing_ok=True)
                raise InvalidInput(f"{file.path} was not uploaded whole; upload it again")
        folder = Path(tempfile.mkdtemp(prefix="add-", dir=self._staging))
        for file in files:
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            # Two files may have one content.
            shutil.copyfile(self._staged(file.digest), target)
        for digest in {file.digest for file in files}:
            self._staged(digest).unlink(missing_ok=True)
        return folder

    def _staged(self, digest: str) -> Path:
        if not DIGEST.fullmatch(digest):
            raise InvalidInput(f"{digest!r} is no SHA-256 in hexadecimal digits")
        return self._staging / digest

    def _command(
        self, operation: str, flags: Sequence[str], changed: messages.ChangedBy, who: str,
        *names: str,
    ) -> messages.ReleaseEvent:  # fmt: skip
        """Run an operation that opens a model, and return its event."""
        own = [*flags, *self._whose(changed, who), *self._demands()]
        told = self._operate(operation, own, names)
        return messages.ReleaseEvent(**json.loads(told))

    def _demands(self) -> Sequence[str]:
        trust = self._trust
        return [
            f"--model-keys={','.join(trust.model_keys)}",
            f"--model-signers={','.join(map(str, trust.model_signers))}",
            f"--require-models={trust.require_models}",
        ]

    def _whose(self, changed: messages.ChangedBy, who: str) -> Sequence[str]:
        own = by(changed, who)
        return [f"--store={self._address}", f"--who={own.who}", f"--why={own.why}", "--json"]

    def _operate(
        self, operation: str, flags: Sequence[str], names: Sequence[str], seconds: float = CHECK_S
    ) -> str:
        """Run an operation in a process of its own, and return what it prints."""
        with self._store():
            try:
                ended = self._run([operation, *flags, "--", *names], seconds)
            except subprocess.TimeoutExpired as error:
                raise Unavailable(f"`{operation}` took more than {seconds:.0f} s") from error
        if ended.returncode:
            said = ended.stderr.strip().splitlines() or ["the model ended the process"]
            raise InvalidInput(said[-1].removeprefix(f"inferd models {operation}: "))
        return ended.stdout

    @contextmanager
    def _store(self) -> Iterator[Store]:
        """Give the store, and turn its errors into those of callers."""
        if not self._address:
            raise Unimplemented("this server follows no store of models")
        try:
            yield open_store(self._address)
        except StoreError as error:
            found = (KINDS[kind] for kind in type(error).__mro__ if kind in KINDS)
            raise next(found, Unavailable)(str(error)) from error


def by(changed: messages.ChangedBy, who: str) -> By:
    """Return who changes something: by the identity that was shown, else by what is said."""
    return By(who or changed.who or ANONYMOUS, changed.why)


def event(found: Event) -> messages.ReleaseEvent:
    """Return an event of the audit log as a message."""
    return messages.ReleaseEvent(**asdict(found))
