"""Which models may batch: those whose first dimension stands for independent rows.

A model whose file says so by its shapes alone may still mix rows (a mean over the first dimension,
say): batching it would answer wrongly and nobody would notice. So its rows are tried before
they share a run, and the graph is read for what a trial cannot show.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from inferd_engines.batch_axis import Mixing, MixingNode
from inferd_engines.engine import EngineError, Signature
from inferd_engines.onnx_values import ModelFacts

from inferd_server.worker.batching_advice import fixed_input
from inferd_server.worker.row_verdict import Finding, Verdict

log = logging.getLogger(__name__)

Trial = Callable[[int], Verdict]
"""Tries rows in batches of at most so many."""


@dataclass(frozen=True, slots=True)
class Batching:
    """The batch limit of a model (0: none), and how it was found."""

    max_batch_size: int
    reason: str
    fitting: int = 0
    """Rows whose runs keep to the budget in bytes; 0: not known."""
    proven: bool = True
    """False where batches are asked for and nobody knows whether rows are independent."""


def row_bytes(signature: Signature) -> int:
    """Return the least that one request's inputs can take; text counts nothing."""
    return sum(
        math.prod(1 if size is None else size for size in tensor.shape) * tensor.dtype.itemsize
        for tensor in signature.inputs
        if tensor.dtype != object
    )


def find_batching(
    signature: Signature, asked: int | None, default: int, facts: ModelFacts, trial: Trial
) -> Batching:
    """Decide whether, and up to which size, requests of a model share a run.

    Args:
        signature: of the model.
        asked: the model's own setting; 0: no batch dimension; None: find out.
        default: the limit when the model says nothing.
        facts: from the model's file.
        trial: of its rows.

    Raises:
        EngineError: the model asks for batches, and cannot have them.
    """
    if asked == 0:
        return Batching(0, "max_batch_size is 0 in model.yaml")
    fixed = fixed_input(signature, facts.producer)
    if fixed and asked:
        raise EngineError(f"max_batch_size is {asked}, and {fixed}")
    if fixed:
        return Batching(0, fixed)
    proven = next((node for node in facts.mixing if node.mixing is Mixing.PROVEN), None)
    if proven is None:
        verdict = trial(asked or default)
    else:
        verdict = Verdict(Finding.MIXES, f"rows depend on the other rows of their batch: {proven}")
    return decide(verdict, facts, asked, default)


def decide(verdict: Verdict, facts: ModelFacts, asked: int | None, default: int) -> Batching:
    """Weigh what a trial found against what the graph says and the operator asks for.

    Raises:
        EngineError: batches are asked for, and rows are known to be mixed.
    """
    doubt = doubtful(verdict, facts)
    if verdict.finding is Finding.INDEPENDENT and doubt is None:
        return Batching(asked or default, verdict.reason, verdict.fitting)
    reason = verdict.reason
    if doubt is not None:
        reason = f"{reason}, but {doubt}" if independent(verdict) else f"{reason}; {doubt}"
    if verdict.finding is Finding.MIXES:
        if asked:
            raise EngineError(f"max_batch_size is {asked}, and {reason}")
        return Batching(0, reason, verdict.fitting)
    if not asked:
        return Batching(0, reason + hint_of(verdict, default), verdict.fitting)
    text = f"max_batch_size is {asked} in model.yaml, not proven: {reason}"
    return Batching(asked, text, verdict.fitting, proven=False)


def hint_of(verdict: Verdict, default: int) -> str:
    """Return the lines of model.yaml that help where nothing could be told."""
    hint = f"; if rows are independent all the same, set max_batch_size: {default} in model.yaml"
    if verdict.finding is Finding.UNTRIED:
        hint += ", or name rows that the model takes: warm_up: rows.npz (docs/models.md)"
    return hint


def independent(verdict: Verdict) -> bool:
    """True if the trial found no mixing."""
    return verdict.finding is Finding.INDEPENDENT


def doubtful(verdict: Verdict, facts: ModelFacts) -> MixingNode | None:
    """Return the node that speaks against independent rows, in spite of the trial if it has to.

    The trial is the judge where it could be held with numbers that have a fraction: any of them
    moves a mean. Of whole numbers, it may not have met the one that counts.
    """
    if not independent(verdict):
        return next(iter(facts.mixing), None)
    found = (one for one in facts.mixing if one.mixing is Mixing.LIKELY and one.whole)
    return next(found, None)


def batched_signature(signature: Signature) -> Signature:
    """Return a signature whose outputs begin with the free dimension that they have been seen with.

    Some exporters declare one row where there is one for each row of the inputs.
    """
    outputs = tuple(
        replace(tensor, shape=(None, *tensor.shape[1:])) if tensor.shape else tensor
        for tensor in signature.outputs
    )
    return replace(signature, outputs=outputs)
