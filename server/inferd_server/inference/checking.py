"""Checks a parsed request against its model, and finds out what the next one like it can skip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd.tensors import Buffer

from inferd_server.feedback.tokens import TokenSigner
from inferd_server.inference.cacheable import form_of
from inferd_server.inference.inputs import Checked, Located, locate, row_specs
from inferd_server.inference.request_plan import Plan, find_places, find_sources
from inferd_server.inference.response import OutputTarget, Responses, plan_outputs
from inferd_server.inference.sampling import Sampling
from inferd_server.inference.shared_memory import RegionTable
from inferd_server.inference.tokened import TokenResponses, wants_token
from inferd_server.inference.validation import Admitted, admit, requested_outputs, urgency
from inferd_server.models.version import Handle
from inferd_server.monitoring.metrics import Metrics
from inferd_server.sequences.steps import Step, hidden_specs, step_of


@dataclass(frozen=True, slots=True)
class Examined:
    """A request that its model can run."""

    plan: Plan
    elements: Sequence[Located]
    """Of its inputs, unread where they are in shared memory."""
    inputs: Sequence[Checked]
    """The same, to be written into a slot."""


def examine(
    request: ModelInferRequest,
    raw: Sequence[Buffer],
    handle: Handle,
    regions: RegionTable,
    metrics: Metrics,
    signer: TokenSigner,
    sampling: Sampling,
) -> Examined:
    """Check a request.

    Args:
        request: the parsed message, without its raw contents.
        raw: its raw contents.
        handle: of the model.
        regions: of shared memory.
        metrics: where the model is counted.
        signer: makes prediction tokens.
        sampling: decides whether some go to the tap, with their answers.

    Raises:
        InvalidInput: the model cannot run it.
        RegionNotFound: a shared memory region is unknown.
    """
    admitted = admit(request, raw, handle.signature, handle.bounds.max_batch_size)
    targets = _targets(request, admitted, handle, regions)
    elements = locate(admitted, regions)
    series = metrics.of(handle.name, handle.version)
    step = _step(request, admitted, handle)
    # A step is another one each time.
    sources = find_sources(admitted, raw, elements) if step is None else None
    plan = Plan(
        handle,
        handle.arena,
        series,
        (*row_specs(admitted, handle.batched), *(() if step is None else hidden_specs())),
        admitted.rows,
        sum(item.nbytes for item in elements),
        handle.batched,
        _responses(request, admitted, handle, targets, signer),
        sources,
        urgency(request.parameters, handle.config),
        step,
        find_places(admitted, targets, elements),
        form_of(request, handle, admitted, targets, series),
        any(item.tensor.shared and not item.left_out for item in admitted.inputs),
        sampling.of(handle, admitted, sources, targets),
    )
    pairs = zip(admitted.inputs, elements, strict=True)
    return Examined(plan, elements, [Checked(item, located) for item, located in pairs])


def _targets(
    request: ModelInferRequest, admitted: Admitted, handle: Handle, regions: RegionTable
) -> list[OutputTarget]:
    wanted, labels = requested_outputs(request, handle.signature), handle.config.labels
    rows, batched = admitted.rows, handle.batched
    return plan_outputs(wanted, handle.signature, labels, regions, rows=rows, batched=batched)


def _responses(
    request: ModelInferRequest,
    admitted: Admitted,
    handle: Handle,
    targets: Sequence[OutputTarget],
    signer: TokenSigner,
) -> Responses:
    if wants_token(request, handle, admitted.rows):
        return TokenResponses(request.model_name, handle, targets, signer)
    return Responses(request.model_name, handle.version, targets)


def _step(request: ModelInferRequest, admitted: Admitted, handle: Handle) -> Step | None:
    stateful, largest = handle.config.sequence is not None, handle.largest_sequence_id
    return step_of(request.parameters, admitted.rows, stateful=stateful, largest=largest)
