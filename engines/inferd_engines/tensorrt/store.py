"""Plans on disk, addressed by what they were made of; shared by processes and pods.

    FOLDER/DIGEST/plan            the plan
    FOLDER/DIGEST/manifest.json   what it is of, its size and its SHA-256
    FOLDER/DIGEST/accepted.json   how it was compared with its model; or refused.json, and no plan
    FOLDER/DIGEST.lock            held by who builds it; never deleted

A plan appears as a whole, by renaming a folder, or not at all. The lock is the kernel's
(flock(2), which NFS knows, too), so that it ends with its holder, however that ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferd_engines.tensorrt.errors import PlanRefused
from inferd_engines.tensorrt.key import PlanKey, differences

log = logging.getLogger(__name__)
PLAN, MANIFEST = "plan", "manifest.json"
ACCEPTED, REFUSED = "accepted.json", "refused.json"


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """A plan that is whole and of the model, host and options that were asked for."""

    data: bytes
    manifest: Mapping[str, Any]


class PlanStore:
    """A folder of plans. Any thread and any process may call any method."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which is made when the first plan is put there."""
        self._folder = folder

    def find(self, key: PlanKey) -> StoredPlan | None:
        """Return the plan of a key; None if there is none, or it is damaged.

        A damaged plan is removed, with a warning, so that it is built anew.

        Raises:
            PlanRefused: it was built and gave other answers than its model.
        """
        folder = self._folder / key.digest
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
            data = (folder / PLAN).read_bytes()
        except FileNotFoundError:
            self._check_refused(key)
            return None
        except (OSError, ValueError) as error:
            problem = str(error)
        else:
            problem = problem_with(manifest, data, key)
        if not problem:
            return StoredPlan(data, manifest)
        log.warning("a plan cannot be used and is removed", extra={"why": problem})
        self.forget(key)
        return None

    def publish(self, key: PlanKey, plan: bytes, about: Mapping[str, Any]) -> None:
        """Put a plan there, at once and as a whole; one that is there already stays.

        Args:
            key: its address.
            plan: serialised.
            about: for the manifest, besides key, size and digest.

        Raises:
            OSError: there is no room, or the folder cannot be written.
        """
        manifest = {
            **about,
            "key": key.parts,
            "bytes": len(plan),
            "sha256": hashlib.sha256(plan).hexdigest(),
        }
        self._put(key, {PLAN: plan, MANIFEST: text_of(manifest)})

    def accepted(self, key: PlanKey) -> bool:
        """True if a plan was compared with its model and found to be right."""
        return (self._folder / key.digest / ACCEPTED).is_file()

    def accept(self, key: PlanKey, report: Mapping[str, Any]) -> None:
        """Remember that a plan is right, and how it was found."""
        self._note(key, ACCEPTED, report)

    def refuse(self, key: PlanKey, report: Mapping[str, Any]) -> None:
        """Remember that a plan must not serve, and why; its bytes go."""
        self._note(key, REFUSED, report)
        (self._folder / key.digest / MANIFEST).unlink(missing_ok=True)
        (self._folder / key.digest / PLAN).unlink(missing_ok=True)

    def forget(self, key: PlanKey) -> None:
        """Remove a plan, or that it was refused."""
        shutil.rmtree(self._folder / key.digest, ignore_errors=True)

    @contextmanager
    def building(self, key: PlanKey, *, wait: bool = True) -> Iterator[bool]:
        """Be the only one, among all processes, that builds a key's plan.

        Args:
            key: of the plan.
            wait: for another builder; otherwise give False at once.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._folder / f"{key.digest}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            yield locked(descriptor, wait)
        finally:
            os.close(descriptor)

    def _check_refused(self, key: PlanKey) -> None:
        """Raise PlanRefused if a plan is missing because it was refused."""
        with suppress(FileNotFoundError, ValueError):
            refused = json.loads((self._folder / key.digest / REFUSED).read_bytes())
            raise PlanRefused(f"the plan was built and refused, see {REFUSED}: {refused}")

    def _note(self, key: PlanKey, name: str, report: Mapping[str, Any]) -> None:
        target = self._folder / key.digest / name
        made = target.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
        try:
            write(made, text_of(report))
            made.replace(target)
        finally:
            made.unlink(missing_ok=True)

    def _put(self, key: PlanKey, files: Mapping[str, bytes]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".new-", dir=self._folder))
        try:
            for name, data in files.items():
                write(made / name, data)
            made.chmod(0o755)
            try:
                made.rename(self._folder / key.digest)
            except OSError:
                # One that is there already is as good.
                if not (self._folder / key.digest).is_dir():
                    raise
            sync(self._folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)


def problem_with(manifest: Any, data: bytes, key: PlanKey) -> str:
    """Say what is wrong with a stored plan; "" if nothing is."""
    if not isinstance(manifest, Mapping):
        return "the manifest is not one"
    if manifest.get("bytes") != len(data):
        return f"it has {len(data)} bytes and should have {manifest.get('bytes')}"
    if manifest.get("sha256") != hashlib.sha256(data).hexdigest():
        return "its bytes are not those that were written"
    return "; ".join(differences(key.parts, manifest.get("key") or {}))


def locked(descriptor: int, wait: bool) -> bool:
    """Take a file's lock; False if somebody else has it and nobody shall wait."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def write(path: Path, data: bytes) -> None:
    """Write a file so that it is on the disk before anybody refers to it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Let a renamed entry of a folder reach the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def text_of(value: Mapping[str, Any]) -> bytes:
    """Return JSON for people and programs."""
    return json.dumps(value, indent=2, sort_keys=True).encode()
