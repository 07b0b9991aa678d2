"""reference.npz: rows beside a version's model that its requests are compared with.

Arrays by input, rows first; outputs that belong to them may be there, too.
"""

from __future__ import annotations

import hashlib
import io
import logging
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from inferd.tensors import Array
from inferd_engines.engine import Engine, EngineError, Tensor
from inferd_engines.model_files import ModelFiles
from inferd_store.release import REFERENCE_FILE

from inferd_server.models.config import ModelConfig
from inferd_server.models.version import Description
from inferd_server.models.warmup import fitting
from inferd_server.monitoring.drift.reference import (
    LEAST_ROWS,
    MOST_ROWS,
    Hints,
    RowBatch,
    Unfit,
    chosen,
    make_reference,
    rows_of,
)
from inferd_server.monitoring.drift.references import References
from inferd_server.monitoring.drift.watch import Watched

log = logging.getLogger(__name__)
RUN_S = 5.0
"""For the outputs of a reference that brings none; what ran by then is all of it."""


@dataclass(frozen=True, slots=True)
class DriftKeeper:
    """What a process has for the references of its versions."""

    references: References
    learn_rows: int
    """Where neither the version nor its model.yaml says anything."""
    share: float
    """Part of the requests that are looked at, where model.yaml says nothing of it."""
    off: bool
    """Nobody looks for drift."""
    problem: str = ""
    """Why nobody can, where it is asked for; "": it can be done."""


def reference_key(
    keeper: DriftKeeper,
    about: Description,
    files: ModelFiles,
    digest: Callable[[], str],
    engine: Engine | None,
    clock: Callable[[], float],
) -> str:
    """Make the reference of a version where it brings data, and return its key.

    What is wrong with the data is told, and no reason not to serve.

    Args:
        keeper: of this process.
        about: the version.
        files: of the version.
        digest: returns that of their content; "" where they cannot be read again.
        engine: that runs the data; None: it cannot, because requests build on each other.
        clock: seconds.

    Returns:
        "" where the version is not watched.

    Raises:
        EngineError: a fatal one.
    """
    learn = learn_rows(about.config, keeper.learn_rows)
    path = files.model.parent / REFERENCE_FILE
    there = path.exists()
    if keeper.off or not about.config.drift.watch or not (there or learn):
        return ""
    where = {"model": about.name, "version": about.version}
    try:
        if files.sealed:
            raise Unfit("its files are sealed, and a reference would be kept in the clear")
        if keeper.problem:
            raise Unfit(keeper.problem)
        if not (keeper.share if about.config.sample_share is None else about.config.sample_share):
            raise Unfit("no request is looked at: sample_share is 0")
        data = files.again().read(REFERENCE_FILE) if there else b""
        key = key_of(about, digest(), data)
        if there and keeper.references.find(key) is None:
            batch = with_outputs(read_reference(data, about), about, engine, clock)
            made = make_reference([batch], hints_of(about.config), REFERENCE_FILE)
            keeper.references.agree(key, made)
    except (EngineError, Unfit, ValueError) as error:
        if isinstance(error, EngineError) and error.fatal:
            raise
        log.warning("drift is not watched", extra={**where, "why": f"{path.name}: {error}"})
        return ""
    return key


def watched(about: Description, learn: int) -> Watched | None:
    """Return how a version is watched; None: it is not.

    Args:
        about: the version.
        learn: rows that a reference is learned from by default.
    """
    if not about.drift:
        return None
    return Watched(about.drift, hints_of(about.config), learn_rows(about.config, learn))


def learn_rows(config: ModelConfig, default: int) -> int:
    """Return how many rows a reference is learned from; 0: none is."""
    asked = config.drift.learn_rows
    return default if asked is None else asked


def hints_of(config: ModelConfig) -> Hints:
    """Return what model.yaml says of the tensors."""
    return Hints(tuple(config.drift.logits), config.drift.embedding, dict(config.format))


def key_of(about: Description, digest: str, data: bytes) -> str:
    """Return the key of a version's reference: other files, or other settings, have another."""
    told = (about.name, about.version, digest, repr(hints_of(about.config)))
    return hashlib.sha256(repr(told).encode() + hashlib.sha256(data).digest()).hexdigest()


def read_reference(data: bytes, about: Description) -> RowBatch:
    """Read the data of a reference.

    Args:
        data: of the file.
        about: the version.

    Raises:
        Unfit: it is no such file, or not of this model.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays: dict[str, Array] = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise Unfit(f"it is no file of arrays: {error}") from error
    inputs = _those(about.signature.inputs, arrays)
    if not inputs:
        wanted = ", ".join(tensor.name for tensor in about.signature.inputs)
        raise Unfit(f"it has no array of an input; {wanted} were expected")
    batch = RowBatch(inputs, _those(about.signature.outputs, arrays))
    rows = rows_of(batch)
    if rows < LEAST_ROWS:
        raise Unfit(f"its arrays do not have the same number of rows, or fewer than {LEAST_ROWS}")
    return chosen(batch, MOST_ROWS)


def _those(tensors: Sequence[Tensor], arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays of some tensors, as they are sent.

    Raises:
        Unfit: one cannot be sent.
    """
    try:
        return {one.name: fitting(arrays[one.name], one) for one in tensors if one.name in arrays}
    except ValueError as error:
        raise Unfit(str(error)) from error


def with_outputs(
    batch: RowBatch, about: Description, engine: Engine | None, clock: Callable[[], float]
) -> RowBatch:
    """Return the rows with the model's outputs, of as many as can be run in RUN_S.

    Args:
        batch: some rows.
        about: the version.
        engine: that runs them; None: it cannot.
        clock: seconds.

    Raises:
        EngineError: the model does not take them.
    """
    lacks = {one.name for one in about.signature.outputs} - batch.outputs.keys()
    needed = {one.name for one in about.signature.inputs if not one.shared}
    if not lacks or engine is None or not needed <= batch.inputs.keys():
        return batch
    size = max(1, about.bounds.max_batch_size)
    until, rows = clock() + RUN_S, 0
    parts: list[dict[str, Array]] = []
    while rows < rows_of(batch) and (clock() < until or not parts):
        taken = {name: array[rows : rows + size] for name, array in batch.inputs.items()}
        parts.append(dict(engine.run(taken, {}, len(next(iter(taken.values()))))))
        rows = min(rows + size, rows_of(batch))
    if rows < LEAST_ROWS:
        where = {"model": about.name, "version": about.version}
        log.warning("a reference lacks outputs, which take too long to run", extra=where)
        return batch
    outputs = {
        name: np.concatenate([part[name] for part in parts])
        for name in parts[0]
        if all(len(part[name]) for part in parts)
    }
    inputs = {name: array[:rows] for name, array in batch.inputs.items()}
    return RowBatch(inputs, {name: array for name, array in outputs.items() if len(array) == rows})
