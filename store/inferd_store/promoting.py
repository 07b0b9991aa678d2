"""Adding and promoting: what a store does with a model besides keeping it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from inferd_seal.trusted_files import Demands

from inferd_store.adding import MODEL_FILES, Draft, Sources
from inferd_store.checking import LATENCY, Checked, both, check_bounds, opened
from inferd_store.errors import GateClosed, Refused
from inferd_store.objects import Progress, nothing
from inferd_store.record import Event, Label, check_name
from inferd_store.release import About, Bounds, Release
from inferd_store.store import By, Store, timestamp
from inferd_store.transfer import fetch

ANYTHING = Demands()
"""Nothing is demanded of files, and no key is given."""


def checked(
    name: str,
    draft: Draft,
    about: About,
    demands: Demands = ANYTHING,
    clock: Callable[[], float] = time.time,
) -> tuple[Release, Sources]:
    """Return the release that files make, once they were tried, and where they are.

    Args:
        name: of the model.
        draft: its files.
        about: what is said of it.
        demands: what is demanded of the files.
        clock: seconds since the epoch.

    Raises:
        Refused: it cannot be one, with the reason.
    """
    check_name(name)
    sources = Sources(draft)
    with _linked(draft) as folder, opened(folder / draft.model, name, None, demands) as model:
        model.check_files(draft.files)
        model.check_golden(about.tolerance)
        model.check_reference()
        contents, sealed_as = model.contents(), model.sealed_as
    sources.check()
    return sources.release(contents, about, timestamp(clock()), sealed_as), sources


@contextmanager
def _linked(draft: Draft) -> Iterator[Path]:
    """Give a folder in which a draft's files lie as they will in that of the version."""
    with tempfile.TemporaryDirectory(prefix="inferd-add-") as folder:
        for name, path in draft.files.items():
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path.absolute())
        yield Path(folder)


def promote(
    store: Store,
    name: str,
    version: str,
    label: str,
    by: By,
    bounds: Bounds,
    progress: Progress = nothing,
    demands: Demands = ANYTHING,
) -> Event:
    """Move a label to a version that passes: it loads, answers as it did, and keeps its bounds.

    Args:
        store: of the model.
        name: of it.
        version: its number, "@label" or "latest".
        label: such as "production".
        by: who promotes it.
        bounds: besides those of the release.
        progress: told of bytes that were fetched.
        demands: what is demanded of the files.

    Raises:
        Conflict: somebody else moved the label meanwhile.
        GateClosed: it does not pass; the label stays where it is.
    """
    seen = store.record(name).labels.get(label, Label(0))
    number, release = store.release(name, version)
    try:
        with (
            fetched(store, release, progress) as folder,
            opened(folder / model_file(release), name, number, demands) as model,
        ):
            check_gates(model, release.about, bounds)
    except Refused as error:
        text = f"version {number} of model {name!r} is not promoted: {error}"
        raise GateClosed(text) from error
    return store.move(name, label, str(number), by, "promote", seen)


@contextmanager
def fetched(store: Store, release: Release, progress: Progress) -> Iterator[Path]:
    """Give a folder with the files of a release, as they lie in the store."""
    folder = Path(tempfile.mkdtemp(prefix="inferd-promote-"))
    try:
        for file in release.files:
            fetch(store.objects, file, folder / file.path, progress)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_gates(model: Checked, about: About, bounds: Bounds) -> None:
    """See whether a release may be promoted.

    Args:
        model: of the release.
        about: what was said of it.
        bounds: besides those of the release.

    Raises:
        Refused: it may not.
    """
    wanted = both(about.bounds, bounds)
    metrics = dict(about.metrics)
    golden = model.check_golden(about.tolerance)
    if golden and LATENCY in wanted and LATENCY not in metrics:
        metrics[LATENCY] = model.latency_ms(golden)
    check_bounds(metrics, wanted)


def model_file(release: Release) -> str:
    """Return the path of a release's model file.

    Raises:
        Refused: it has none.
    """
    names = {file.path for file in release.files}
    for name in MODEL_FILES:
        if name in names:
            return name
    raise Refused("it has no model file")
