"""The warm-up of an engine: runs that make the first callers' runs quick."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from inferd.tensors import Array, datatype_of
from inferd_engines.arrays import zeros
from inferd_engines.engine import Engine, EngineError, Signature, Tensor

from inferd_server.models.config import ModelConfig

log = logging.getLogger(__name__)


class WarmUp:
    """Runs of an engine on the first of several inputs that it takes."""

    def __init__(self, engine: Engine, own: Mapping[str, Array] | None, batched: bool) -> None:
        """Prepare.

        Args:
            engine: opened; used on its thread.
            own: arrays that model.yaml names, by input; None if it names none.
            batched: the first dimension of `own` counts rows.
        """
        self._engine = engine
        self._own = own
        self._batched = batched
        self.takes_zeros = False
        self.reason = ""
        """Why zeros do not do, and what was taken instead; "" if they do."""

    def warm(self, rows: int) -> None:
        """Run once with so many rows; a row of another model is its whole input.

        Raises:
            EngineError: the engine takes none of the inputs, or the error is fatal.
        """
        why = ""
        for name, run in self._ways():
            try:
                run(rows)
            except EngineError as error:
                if error.fatal:
                    raise
                why = why or f"a run on {name} failed: {error}"
            else:
                self.takes_zeros = self.takes_zeros or name == "zeros"
                self.reason = self.reason or (why and f"{why}; {name} were taken instead")
                return
        self.reason = why
        raise EngineError(why)

    def outputs(self) -> Mapping[str, Array]:
        """Return what one row is answered, or one request; {} if none of the inputs are taken.

        Raises:
            EngineError: a fatal one.
        """
        for inputs in self._rows_of(1):
            try:
                return self._engine.run(inputs, {}, 1)
            except EngineError as error:
                if error.fatal:
                    raise
        return {}

    def _rows_of(self, rows: int) -> Iterator[Mapping[str, Array]]:
        """Yield inputs that the model may take, those most likely first."""
        tensors = self._engine.signature.inputs
        if self._own is not None:
            yield self._own_rows(rows)
        yield {tensor.name: zeros(tensor, rows) for tensor in tensors}
        yield {tensor.name: ones(tensor, rows) for tensor in tensors}

    def _ways(self) -> Sequence[tuple[str, Callable[[int], None]]]:
        usual = [("zeros", self._engine.warm), ("ones", self._ones)]
        return usual if self._own is None else [("its own data", self._given), *usual]

    def _ones(self, rows: int) -> None:
        inputs = {tensor.name: ones(tensor, rows) for tensor in self._engine.signature.inputs}
        self._engine.run(inputs, {}, rows)

    def _given(self, rows: int) -> None:
        self._engine.run(self._own_rows(rows), {}, rows if self._batched else 1)

    def _own_rows(self, rows: int) -> Mapping[str, Array]:
        """Return the model's own data, repeated to so many rows where they are rows."""
        assert self._own is not None
        if not self._batched:
            return self._own
        return {
            name: np.take(array, range(rows), axis=0, mode="wrap")
            for name, array in self._own.items()
        }


def warm(warm_up: WarmUp, config: ModelConfig, largest: int, *, model: str) -> None:
    """Run the sizes that model.yaml names, or one row and the largest batch that is made.

    What fails is no reason to refuse a model: its callers may send what it takes.

    Raises:
        EngineError: a fatal one.
    """
    asked = config.warm_up
    sizes = sorted({1, largest}) if asked is None or isinstance(asked, str) else asked
    for rows in sizes:
        try:
            warm_up.warm(rows)
        except EngineError as error:
            if error.fatal:
                raise
            log.warning("not warmed", extra={"model": model, "rows": rows, "why": str(error)})


def preferred_rows(
    warm_up: WarmUp,
    config: ModelConfig,
    most: int,
    buckets: Sequence[int],
    clock: Callable[[], float],
) -> int:
    """Return the rows that requests are put together to.

    Args:
        warm_up: of the opened engine.
        config: of the model.
        most: rows that a batch may have.
        buckets: of the engine.
        clock: monotonic seconds.
    """
    if buckets:
        most = min(most, max(buckets))
    if config.preferred_rows is not None:
        return min(config.preferred_rows, most)
    if most < 2 or config.warm_up == []:
        return most
    return worthwhile_rows(lambda rows: run_seconds(warm_up, rows, clock, 2), most)


def ones(tensor: Tensor, rows: int) -> Array:
    """Return an input of ones ("1" for BYTES), of the shape of `zeros`."""
    made = zeros(tensor, rows)
    made[...] = b"1" if tensor.dtype == object else 1
    return made


def read_own(config: ModelConfig, folder: Path, signature: Signature) -> Mapping[str, Array] | None:
    """Read the inputs that model.yaml names under `warm_up`; None if it names none.

    Args:
        config: of the model.
        folder: of model.yaml.
        signature: of the model.

    Returns:
        Arrays of the inputs' dtypes, by name.

    Raises:
        EngineError: the file cannot be read, or an array is missing or does not fit.
    """
    if not isinstance(config.warm_up, str):
        return None
    name = config.warm_up
    try:
        with np.load(folder / name, allow_pickle=False) as file:
            return {tensor.name: fitting(file[tensor.name], tensor) for tensor in signature.inputs}
    except KeyError as error:
        wanted = ", ".join(tensor.name for tensor in signature.inputs)
        raise EngineError(
            f"warm_up names {name}, which lacks an array; {wanted} were expected"
        ) from error
    except (OSError, ValueError) as error:
        raise EngineError(f"warm_up names {name}, which cannot be used: {error}") from error


def fitting(array: Array, tensor: Tensor) -> Array:
    """Return an array as an input takes it.

    Raises:
        ValueError: it cannot.
    """
    shape = [-1 if size is None else size for size in tensor.shape]
    pairs = zip(tensor.shape, array.shape, strict=False)
    if array.ndim != len(shape) or any(size not in (None, given) for size, given in pairs):
        raise ValueError(f"{tensor.name!r} has shape {list(array.shape)}; {shape} was expected")
    if not array.size:
        raise ValueError(f"{tensor.name!r} is empty")
    if tensor.dtype == object:
        if array.dtype.kind not in "US":
            raise ValueError(f"{tensor.name!r} holds no text")
        encoded = np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
        return encoded.astype(object)
    kinds = "iub" if tensor.dtype.kind in "iub" else "iubf"
    if array.dtype.kind not in kinds and array.dtype != tensor.dtype:
        raise ValueError(
            f"{tensor.name!r} is {array.dtype}; {datatype_of(tensor.dtype)} was expected"
        )
    return np.ascontiguousarray(array.astype(tensor.dtype))


def free_dimensions(signature: Signature, batched: bool) -> bool:
    """True if an input has a free dimension besides that of the batch."""
    return any(None in tensor.shape[int(batched) :] for tensor in signature.inputs)


TRIALS = 3
SLOW_S = 0.005
"""A run from which on sharing one saves nothing but the engine's own time."""
GAIN, SMALL_GAIN = 1.1, 1.03
"""How much more rows a second twice the rows have to bring, for still more to be tried; and how
much while the trials took less than TRIED_S."""
TRIED_S = 0.5
ENOUGH = 0.95
"""Part of the most rows a second that the batch size is to reach, the smallest that does."""


class Warms(Protocol):
    """What can be run on inputs of its own."""

    def warm(self, rows: int) -> None:
        """Run once with so many rows.

        Raises:
            EngineError: it cannot.
        """


def run_seconds(
    engine: Warms, rows: int, clock: Callable[[], float], trials: int = TRIALS
) -> float | None:
    """Time a run, the best of a few; None if the model does not take its inputs.

    Raises:
        EngineError: a fatal one.
    """
    best = None
    for _ in range(trials):
        start = clock()
        try:
            engine.warm(rows)
        except EngineError as error:
            if error.fatal:
                raise
            return None
        seconds = clock() - start
        best = seconds if best is None else min(best, seconds)
    return best


def worthwhile_rows(seconds: Callable[[int], float | None], most: int) -> int:
    """Return the smallest batch size that brings nearly as many rows a second as any larger one.

    A slow model that is busy with a few rows already, as networks of convolutions are on a
    processor, gains little from more of them: whoever just missed a large batch waits for all
    of it.

    Args:
        seconds: returns the time of a run of so many rows; None if it cannot run.
        most: rows that a batch may have.
    """
    one = seconds(1)
    if one is None or one < SLOW_S:
        return most
    known, tried = {1: 1 / one}, one
    for size in doubled(most):
        taken = seconds(size)
        if taken is None:
            return most
        before, known[size] = max(known.values()), size / taken
        tried += taken
        if known[size] < before * (SMALL_GAIN if tried < TRIED_S else GAIN):
            break
    best = max(known.values())
    return min(size for size, rate in known.items() if rate >= best * ENOUGH)


def doubled(most: int) -> Iterator[int]:
    """Yield 2, 4, 8 and so on, and `most` in the end."""
    size = 2
    while size < most:
        yield size
        size *= 2
    yield most
