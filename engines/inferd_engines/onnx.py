"""ONNX Runtime behind the engine interface, on any provider of the installed build."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from inferd_engines.arrays import check_inputs, zeros
from inferd_engines.engine import Array, EngineError, EngineOptions, PlanState, Signature, Tensor
from inferd_engines.onnx_errors import brief, is_bad_input, is_fatal
from inferd_engines.onnx_file import is_steady, needs_text
from inferd_engines.onnx_overridable import overridable_inputs
from inferd_engines.onnx_run import (
    CONVERTED,
    refuse_unreadable,
    run_bound,
    run_plain,
    shrink_arena,
    wants_binding,
)
from inferd_engines.onnx_session import CPU, Source, open_source, read_source, runtime_version
from inferd_engines.onnx_signature import read_signature
from inferd_engines.onnx_threads import SMALL_FILES, has_small_rows
from inferd_engines.onnx_zipmap import Replaced, with_columns, without_zipmap

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

log = logging.getLogger(__name__)


def open_onnx(path: Path, options: EngineOptions) -> OnnxEngine:
    """Load an ONNX or ORT file, with its external data where it has some beside it.

    Args:
        path: the file, .onnx or .ort.
        options: `providers` are ONNX Runtime's execution providers ("CUDAExecutionProvider",
            ...; default: the CPU's), `extra` its session config entries and `cpu_arena`. With
            `threads` of 0 small models get one and others every core that this process may use.

    Raises:
        EngineError: the file is missing, damaged or not supported, or an option is unknown.
    """
    source = read_source(path, options)
    content, replaced = without_zipmap(source.content)
    for one in replaced:
        told = {"model": str(path), "output": one.output, "columns": list(one.classes)}
        log.info("a ZipMap at the end was replaced by its input", extra=told)
    source = replace(source, content=content)
    if options.threads == 0 and is_small_model(source):
        engine = load_engine(source, replace(options, threads=1), replaced)
        if has_small_rows(engine.signature):
            return engine
        engine.close()
    return load_engine(source, options, replaced)


def is_small_model(source: Source) -> bool:
    """Tell whether model and weights together are below SMALL_FILES."""
    return len(source.content) + sum(map(len, source.beside.values())) < SMALL_FILES


def load_engine(
    source: Source, options: EngineOptions, replaced: Sequence[Replaced] = ()
) -> OnnxEngine:
    """Make an engine with the threads that the options say; 0 means every core.

    Args:
        source: of the model.
        options: of the engine.
        replaced: ZipMaps that the source has no more.

    Raises:
        EngineError: the model is damaged or not supported, or an option is unknown.
    """
    session, name, reason = open_source(source, options)
    signature, left_out = read_signature(session, text=needs_text(source.content))
    signature = with_columns(signature, replaced)
    refuse_unreadable(signature)
    if left_out:
        log.warning("outputs are left out", extra={"model": str(source.path), "why": left_out})
        reason = "; ".join(filter(None, (reason, left_out)))
    return OnnxEngine(
        session,
        signature,
        name,
        reason,
        steady=is_steady(source.content),
        overridable=overridable_inputs(session, source.content),
    )


class OnnxEngine:
    """One ONNX Runtime session. Opened, used and closed by one thread."""

    def __init__(
        self,
        session: InferenceSession,
        signature: Signature,
        name: str,
        reason: str,
        *,
        steady: bool = False,
        overridable: Sequence[Tensor] = (),
    ) -> None:
        self._session: InferenceSession | None = session
        self.signature = signature
        self.name = name
        self.version = runtime_version()
        self.reason = reason
        self.plan_state = PlanState.NONE
        self.steady = steady
        self.overridable = overridable
        self.buckets: Sequence[int] = ()
        tensors = (*signature.inputs, *signature.outputs, *overridable)
        # Numbers as numpy has them: the runtime takes and gives such arrays as they are.
        self._as_they_are = all(tensor.dtype not in CONVERTED for tensor in tensors)
        self._outputs = [tensor.name for tensor in signature.outputs]

    def run(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int
    ) -> Mapping[str, Array]:
        """Execute once and return every output by name; BYTES elements are `bytes`.

        Inputs that may be left out have their own values then. Given output buffers must have
        the exact shape and dtype of the result. `rows` adds nothing to what the shapes of the
        inputs say and is ignored.

        Raises:
            EngineError: the engine is closed, an input is missing, of another dtype or shape
                than the signature's, text that is not UTF-8, a buffer does not fit its
                output, or ONNX Runtime failed. The engine remains usable unless `fatal`.
        """
        del rows
        if self._session is None:
            raise EngineError("the engine is closed")
        signature = self.signature
        if self.overridable:
            given = [tensor for tensor in self.overridable if tensor.name in inputs]
            signature = replace(signature, inputs=(*signature.inputs, *given))
        check_inputs(signature, inputs)
        results: Mapping[str, Array]
        try:
            if self._as_they_are and not outputs and len(inputs) == len(signature.inputs):
                values = self._session.run(self._outputs, inputs)
                results = dict(zip(self._outputs, values, strict=True))
            else:
                run = run_bound if wants_binding(signature, outputs) else run_plain
                results = run(self._session, signature, inputs, outputs)
        except EngineError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            fatal = is_fatal(error)
            bad_input = not fatal and is_bad_input(error, inputs)
            raise EngineError(brief(error), fatal=fatal, bad_input=bad_input) from error
        check_results(self.signature, results)
        return results

    def warm(self, rows: int) -> None:
        """Run once on zeros with that many rows and free dimensions of 1.

        Raises:
            EngineError: the model cannot run on such inputs.
        """
        self.run({tensor.name: zeros(tensor, rows) for tensor in self.signature.inputs}, {}, rows)

    def shrink(self, inputs: Mapping[str, Array]) -> None:
        """Run once more, and free what the processor's arena keeps beyond the model.

        Raises:
            EngineError: as `run`.
        """
        if self._session is None or not self.name.endswith(CPU):
            return
        check_inputs(self.signature, inputs)
        try:
            shrink_arena(self._session, self.signature, inputs)
        except EngineError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise EngineError(brief(error), fatal=is_fatal(error)) from error

    def memory(self) -> int:
        """Return 0: ONNX Runtime's Python API does not tell what a session holds."""
        return 0

    def close(self) -> None:
        """Drop the session, and with it the model and its arena. Safe to call twice."""
        self._session = None


def check_results(signature: Signature, results: Mapping[str, Array]) -> None:
    """Hold the runtime to what its own signature promises.

    Raises:
        EngineError: an output is missing, not an array, or of another dtype.
    """
    for tensor in signature.outputs:
        array = results.get(tensor.name)
        if not isinstance(array, np.ndarray) or array.dtype != tensor.dtype:
            kind = getattr(array, "dtype", type(array).__name__)
            raise EngineError(f"output {tensor.name!r} came as {kind}, not as {tensor.dtype}")
