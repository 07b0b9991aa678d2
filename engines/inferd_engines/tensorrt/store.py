"""Plans on disk, addressed by what they were made of; shared by processes and pods.

    FOLDER/DIGEST/plan            the plan
    FOLDER/DIGEST/manifest.json   what it is of, its size and its SHA-256
    FOLDER/DIGEST/accepted.json   how near it is to its model, and how fast; or refused.json, and
                                  no plan
    FOLDER/DIGEST.lock            held by who builds it; never deleted
    FOLDER/timing/, runtime/      what TensorRT measured and compiled, see cache_store.py

A plan appears as a whole, by renaming a folder, or not at all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferd_engines.tensorrt.disk import lock, replace, sync, text_of, write
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

    @property
    def folder(self) -> Path:
        """Where the plans are."""
        return self._folder

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
            if not incomplete(folder):
                return None
            problem = "a part of it is gone"
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

    def accepted(self, key: PlanKey) -> Mapping[str, Any] | None:
        """Return how a plan was found to be right; None if it was not compared yet."""
        path = self._folder / key.digest / ACCEPTED
        try:
            report = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("a report is ignored", extra={"file": str(path), "why": str(error)})
            return None
        return report if isinstance(report, Mapping) else None

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
        with lock(self._folder / f"{key.digest}.lock", wait=wait) as mine:
            yield mine

    def _check_refused(self, key: PlanKey) -> None:
        """Raise PlanRefused if a plan is missing because it was refused."""
        with suppress(FileNotFoundError, ValueError):
            refused = json.loads((self._folder / key.digest / REFUSED).read_bytes())
            raise PlanRefused(f"the plan was built and refused, see {REFUSED}: {refused}")

    def _note(self, key: PlanKey, name: str, report: Mapping[str, Any]) -> None:
        replace(self._folder / key.digest / name, text_of(report))

    def _put(self, key: PlanKey, files: Mapping[str, bytes]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".new-", dir=self._folder))
        try:
            for name, data in files.items():
                write(made / name, data)
            made.chmod(0o755)
            if incomplete(self._folder / key.digest):
                self.forget(key)
            try:
                made.rename(self._folder / key.digest)
            except OSError:
                # One that is there already is as good.
                if not (self._folder / key.digest).is_dir():
                    raise
            sync(self._folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)


def incomplete(folder: Path) -> bool:
    """True for the folder of a plan of which a part is gone; it appeared as a whole."""
    if not folder.is_dir() or (folder / REFUSED).exists():
        return False
    return not all((folder / name).exists() for name in (PLAN, MANIFEST))


def problem_with(manifest: Any, data: bytes, key: PlanKey) -> str:
    """Say what is wrong with a stored plan; "" if nothing is."""
    if not isinstance(manifest, Mapping):
        return "the manifest is not one"
    if manifest.get("bytes") != len(data):
        return f"it has {len(data)} bytes and should have {manifest.get('bytes')}"
    if manifest.get("sha256") != hashlib.sha256(data).hexdigest():
        return "its bytes are not those that were written"
    return "; ".join(differences(key.parts, manifest.get("key") or {}))
