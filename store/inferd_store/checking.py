"""Checks of a release before it is added or promoted: it loads, and answers as it should."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

import numpy as np
from inferd.tensors import datatype_of
from inferd_engines.arrays import NOT_NPZ, read_npz
from inferd_engines.engine import (
    Array,
    Engine,
    EngineError,
    EngineOptions,
    Signature,
    Tensor,
    UntrustedFiles,
)
from inferd_engines.model_files import FileReader, ModelFiles
from inferd_engines.onnx_graph import Graph, Model, read_model
from inferd_engines.standard import open_onnx_cpu
from inferd_seal.errors import KeyUnavailable
from inferd_seal.trusted_files import Demands, TrustedFiles, reader_of

from inferd_store.errors import GateClosed, Refused
from inferd_store.release import (
    CONFIG_FILE,
    GOLDEN_FILE,
    REFERENCE_FILE,
    Bounds,
    Contents,
    StoredTensor,
)

CHECKS = "inferd.release_checks"
"""Group of entry points: functions that read a model.yaml, and return its engine's options."""
LATENCY = "latency_ms"
"""The metric that is measured on the golden inputs where nobody states it."""
LEAST_ROWS = 100
"""Of what requests are compared with."""
NO_KEY = "; --model-keys or INFERD_MODEL_KEYS says it, and for --url the server's model_keys"
RUNS = 20
"""Of which the median is the latency."""


class ConfigCheck(Protocol):
    """Reads a model.yaml as a server does."""

    def __call__(self, path: Path) -> tuple[Mapping[str, str], tuple[str, ...]]:
        """Return the options of its engine, and the libraries that it takes.

        Raises:
            Exception: it is wrong; the text says what.
        """


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs by name, and the outputs that belong to them."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


class Checked:
    """A release that was opened in ONNX Runtime, from a folder with its files."""

    def __init__(self, files: ModelFiles, reader: FileReader, engine: Engine) -> None:
        self._model = files.model
        self._files = files
        self._reader = reader
        self._engine = engine

    @property
    def sealed_as(self) -> int:
        """The version that it was sealed as; 0: none."""
        return self._reader.sealed_as if isinstance(self._reader, TrustedFiles) else 0

    def check_files(self, names: Iterable[str]) -> None:
        """See whether files are what was sealed or signed, where that is told.

        Args:
            names: relative to the model's folder.

        Raises:
            Refused: one is not.
        """
        if isinstance(self._reader, TrustedFiles):
            try:
                self._reader.check(names)
            except UntrustedFiles as error:
                raise Refused(f"the model cannot be served: {error}") from error

    def contents(self) -> Contents:
        """Return what the model says of itself."""
        signature = self._engine.signature
        read = read_model(self._files.content()) or Model()
        return Contents(
            tuple(map(stored, signature.inputs)),
            tuple(map(stored, signature.outputs)),
            read.opset,
            dict(sorted(operators_of(read).items())),
        )

    def check_golden(self, tolerance: float) -> Golden | None:
        """Compare the answers to the golden inputs with the golden outputs.

        Returns:
            What was compared; None where there is nothing to compare.

        Raises:
            Refused: they differ, or the file is not as it should be.
        """
        path = self._model.parent / GOLDEN_FILE
        if not path.is_file():
            return None
        golden = read_golden(path, self._engine.signature)
        answers = self._run(golden.inputs)
        for name, wanted in golden.outputs.items():
            if why := unlike(wanted, answers[name], tolerance):
                raise Refused(f"the answer {name!r} to the golden inputs is not as it was: {why}")
        return golden

    def check_reference(self) -> None:
        """See whether requests can be compared with what is there for that.

        Raises:
            Refused: it is no file of arrays, or its first row is none of the model's.
        """
        path = self._model.parent / REFERENCE_FILE
        if not path.is_file():
            return
        signature, arrays = self._engine.signature, read_arrays(path)
        rows = {len(array) if array.ndim else 0 for array in arrays.values()}
        if len(rows) != 1 or min(rows) < LEAST_ROWS:
            raise Refused(f"each array of {path.name} has the same number of rows, {LEAST_ROWS} up")
        inputs = {
            one.name: fitting(arrays[one.name][:1], one, "reference")
            for one in signature.inputs
            if one.name in arrays
        }
        if not inputs:
            raise Refused(f"{path.name} has no input, such as {signature.inputs[0].name!r}")
        if all(one.name in inputs or one.shared for one in signature.inputs):
            self._run(inputs, "reference")

    def latency_ms(self, golden: Golden, clock: Callable[[], float] = time.perf_counter) -> float:
        """Return the median milliseconds of a run on the golden inputs."""
        spent = []
        for _ in range(RUNS):
            begun = clock()
            self._run(golden.inputs)
            spent.append(clock() - begun)
        return statistics.median(spent) * 1000

    def _run(self, inputs: Mapping[str, Array], which: str = "golden") -> Mapping[str, Array]:
        rows = max((len(array) for array in inputs.values() if array.ndim), default=1)
        try:
            return self._engine.run(inputs, {}, rows)
        except EngineError as error:
            raise Refused(f"the model fails on the {which} inputs: {error}") from error


@contextmanager
def opened(model: Path, name: str, version: int | None, demands: Demands) -> Iterator[Checked]:
    """Open the model of a folder in ONNX Runtime, on the processor.

    Args:
        model: its file, in a folder with all files of a release.
        name: of the model.
        version: that it is, or is to be; None: whichever it was sealed as.
        demands: what is demanded of its files.

    Raises:
        Refused: it cannot be opened, or its model.yaml is wrong.
    """
    try:
        reader = reader_of(demands, name, version, model)
        files = ModelFiles(model, reader=reader)
        engine = open_onnx_cpu(model, _options(model.parent, files))
        files.drop()
    except ModuleNotFoundError as error:
        raise Refused(f"a model is tried before it is added, which needs {error.name}") from error
    except EngineError as error:
        raise Refused(f"the model cannot be served: {error}{_cure(error, demands)}") from error
    try:
        yield Checked(files, reader, engine)
    finally:
        engine.close()


def _cure(error: EngineError, demands: Demands) -> str:
    """Say where a key can be given that nobody gave; "" for other errors."""
    missing = isinstance(error, UntrustedFiles) and error.reason == KeyUnavailable.reason
    return NO_KEY if missing and not demands.keys else ""


def _options(folder: Path, files: ModelFiles) -> EngineOptions:
    extra, libraries = _configured(folder / CONFIG_FILE)
    paths = (str(folder / one) if one.endswith(".so") else one for one in libraries)
    return EngineOptions(extra=extra, libraries=tuple(paths), files=files)


def _configured(config: Path) -> tuple[Mapping[str, str], tuple[str, ...]]:
    extra: Mapping[str, str] = {}
    libraries: tuple[str, ...] = ()
    if not config.is_file():
        return extra, libraries
    for entry in entry_points(group=CHECKS):
        check: ConfigCheck = entry.load()
        try:
            extra, libraries = check(config)
        except Exception as error:
            raise Refused(f"{CONFIG_FILE} cannot be used: {error}") from error
    return extra, libraries


def stored(tensor: Tensor) -> StoredTensor:
    """Return a tensor as a release tells of it."""
    return StoredTensor(tensor.name, datatype_of(tensor.dtype), tensor.shape)


def operators_of(model: Model) -> Counter[str]:
    """Count the operators of a model, those of its functions and inner graphs among them."""
    found: Counter[str] = Counter()

    def count(graph: Graph) -> None:
        for node in graph.nodes:
            found[f"{node.domain}.{node.operator}" if node.domain else node.operator] += 1
            for inner in node.graphs:
                count(inner)

    for graph in (model.graph, *model.functions.values()):
        count(graph)
    return found


def read_golden(path: Path, signature: Signature) -> Golden:
    """Read golden inputs and outputs: an array for each, by the names of the signature.

    Raises:
        Refused: one is missing, or the file is none.
    """
    arrays = read_arrays(path)
    missing = [one.name for one in signature.inputs if one.name not in arrays and not one.shared]
    if missing:
        raise Refused(f"{path.name} lacks the input {missing[0]!r}")
    outputs = {one.name: arrays[one.name] for one in signature.outputs if one.name in arrays}
    if not outputs:
        raise Refused(f"{path.name} has no output, such as {signature.outputs[0].name!r}")
    inputs = {
        one.name: fitting(arrays[one.name], one) for one in signature.inputs if one.name in arrays
    }
    return Golden(inputs, outputs)


def read_arrays(path: Path) -> dict[str, Array]:
    """Read a file of arrays by name.

    Raises:
        Refused: it is none.
    """
    try:
        return read_npz(path)
    except NOT_NPZ as error:
        raise Refused(f"{path.name} is no file of arrays: {error}") from error


def fitting(array: Array, tensor: Tensor, which: str = "golden") -> Array:
    """Return an array as an input takes it.

    Raises:
        Refused: it cannot be one.
    """
    sizes = zip(array.shape, tensor.shape, strict=False)
    if array.ndim != len(tensor.shape) or any(b not in (None, a) for a, b in sizes):
        raise Refused(f"the {which} input {tensor.name!r} has shape {list(array.shape)}")
    if tensor.dtype == object:
        texts = [str(one).encode() if isinstance(one, str) else bytes(one) for one in array.flat]
        return np.array(texts, object).reshape(array.shape)
    return np.ascontiguousarray(array, tensor.dtype)


def unlike(wanted: Array, found: Array, tolerance: float) -> str:
    """Say in what an answer differs from the one that is wanted; "" if it does not."""
    if wanted.shape != found.shape:
        return f"its shape is {list(found.shape)}, not {list(wanted.shape)}"
    if found.dtype == object:
        texts = [one.decode(errors="replace") for one in found.flat]
        same = texts == [str(one) for one in wanted.flat]
        return "" if same else "other texts"
    if np.issubdtype(found.dtype, np.inexact):
        close = np.isclose(found, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)
    else:
        close = found == wanted
    wrong = int(close.size - np.count_nonzero(close))
    return f"{wrong} of {close.size} elements differ" if wrong else ""


def check_bounds(metrics: Mapping[str, float], bounds: Bounds) -> None:
    """See whether metrics keep their bounds.

    Raises:
        GateClosed: one does not, or is not known.
    """
    for name, (least, most) in sorted(bounds.items()):
        if name not in metrics:
            raise GateClosed(f"{name} is not known, and must keep a bound")
        value = metrics[name]
        if least is not None and not value >= least:
            raise GateClosed(f"{name} is {value:g}, and must be at least {least:g}")
        if most is not None and not value <= most:
            raise GateClosed(f"{name} is {value:g}, and must be at most {most:g}")


def both(first: Bounds, second: Bounds) -> Bounds:
    """Return bounds that keep both, the stricter of each."""
    found = dict(first)
    for name, (least, most) in second.items():
        before = found.get(name, (None, None))
        leasts = [one for one in (before[0], least) if one is not None]
        mosts = [one for one in (before[1], most) if one is not None]
        found[name] = max(leasts, default=None), min(mosts, default=None)
    return found


def read_bounds(texts: Iterable[str]) -> Bounds:
    """Read bounds such as "accuracy>=0.95" and "latency_ms<=20".

    Raises:
        Refused: one is none.
    """
    found: Bounds = {}
    for text in texts:
        sign = next((sign for sign in (">=", "<=") if sign in text), "")
        name, _, value = text.partition(sign or "\0")
        if not sign or not name:
            raise Refused(
                f"a bound like accuracy>=0.95 or latency_ms<=20 was expected, not {text!r}"
            )
        number = read_number(name, value)
        found = both(found, {name: (number, None) if sign == ">=" else (None, number)})
    return found


def read_number(name: str, text: str) -> float:
    """Read a finite number.

    Raises:
        Refused: it is none.
    """
    try:
        number = float(text)
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise Refused(f"{name}: a number was expected, not {text!r}")
    return float(number)
