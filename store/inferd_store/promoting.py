"""Adding and promoting: what a store does with a model besides keeping it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from inferd_store.adding import MODEL_FILES, Draft, Sources
from inferd_store.checking import LATENCY, both, check_bounds, opened
from inferd_store.errors import GateClosed, Refused
from inferd_store.objects import Progress, nothing
from inferd_store.record import Event, Label, check_name
from inferd_store.release import About, Bounds, Release
from inferd_store.store import By, Store, timestamp
from inferd_store.transfer import fetch


def checked(
    name: str, draft: Draft, about: About, clock: Callable[[], float] = time.time
) -> tuple[Release, Sources]:
    """Return the release that files make, once they were tried, and where they are.

    Args:
        name: of the model.
        draft: its files.
        about: what is said of it.
        clock: seconds since the epoch.

    Raises:
        Refused: it cannot be one, with the reason.
    """
    check_name(name)
    sources = Sources(draft)
    with _linked(draft) as folder, opened(folder, draft.model) as model:
        model.check_golden(about.tolerance)
        model.check_reference()
        contents = model.contents()
    sources.check()
    return sources.release(contents, about, timestamp(clock())), sources


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

    Raises:
        Conflict: somebody else moved the label meanwhile.
        GateClosed: it does not pass; the label stays where it is.
    """
    seen = store.record(name).labels.get(label, Label(0))
    number, release = store.release(name, version)
    try:
        check_gates(store, release, bounds, progress)
    except Refused as error:
        text = f"version {number} of model {name!r} is not promoted: {error}"
        raise GateClosed(text) from error
    return store.move(name, label, str(number), by, "promote", seen)


def check_gates(
    store: Store, release: Release, bounds: Bounds, progress: Progress = nothing
) -> None:
    """See whether a release may be promoted.

    Raises:
        Refused: it may not.
    """
    wanted = both(release.about.bounds, bounds)
    metrics = dict(release.about.metrics)
    folder = Path(tempfile.mkdtemp(prefix="inferd-promote-"))
    try:
        for file in release.files:
            fetch(store.objects, file, folder / file.path, progress)
        with opened(folder, model_file(release)) as model:
            golden = model.check_golden(release.about.tolerance)
            if golden and LATENCY in wanted and LATENCY not in metrics:
                metrics[LATENCY] = model.latency_ms(golden)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
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
