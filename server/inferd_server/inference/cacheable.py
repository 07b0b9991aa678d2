"""The requests that may be answered from the cache, and what it has to know of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd.tensors import Buffer, datatype_of

from inferd_server.cache.key import Form, KeyBase, Owner
from inferd_server.inference.inputs import Located, RegionElements
from inferd_server.inference.request_plan import Plan
from inferd_server.inference.response import OutputTarget
from inferd_server.inference.template import Template
from inferd_server.inference.validation import CLASSIFICATION, Admitted, switch
from inferd_server.models.entries import ModelEntry
from inferd_server.models.version import Handle
from inferd_server.monitoring.series import Series

SWITCH = "inferd_cache"
"""Parameter of a request; false: run it, whatever is known."""
WITHOUT_EFFECT = {SWITCH, "priority", "triton_enable_empty_final_response"}
"""Parameters of a request that say nothing about the elements of its answer.

With a `timeout` a request runs by itself: nobody else's answer may come too late for it.
"""


def form_of(
    request: ModelInferRequest,
    handle: Handle,
    admitted: Admitted,
    targets: Sequence[OutputTarget],
    series: Series,
) -> Form | None:
    """Return what the cache knows of requests that look like this one; None: it is not asked.

    Raises:
        InvalidInput: the parameter `inferd_cache` is neither true nor false.
    """
    wanted = switch(request.parameters, SWITCH) is not False
    config = handle.config.response_cache
    if config is None or not handle.digest or not (wanted and comparable(request)):
        return None
    owner = owner_of(handle)
    inputs = [(i.tensor.name, datatype_of(i.tensor.dtype), i.shape) for i in admitted.inputs]
    outputs = [
        (target.name, target.classes, tuple(target.labels) if target.classes else ())
        for target in targets
    ]
    base = KeyBase(owner, [*inputs, (len(inputs),), *outputs])
    return Form(base, owner, config.ttl_s, config.max_bytes, handle.statistics, series)


def owner_of(handle: Handle) -> Owner:
    """Return whose a handle's answers are."""
    return Owner(handle.name, handle.version, handle.digest)


def owners(entries: Iterable[ModelEntry]) -> set[Owner]:
    """Return whose answers may be kept: of all versions that are loaded."""
    handles = [entry.handle for entry in entries if entry.handle is not None]
    return {owner_of(handle) for handle in handles if handle.digest}


def comparable(request: ModelInferRequest) -> bool:
    """True if name, version, tensors and classes are all that the answer depends on.

    Not so with parameters that the server does not know, those of sequences among them. Nor with
    shared memory: a caller may change it between being compared and being run, and an answer in
    it is not in the message.
    """
    outputs = (output.parameters for output in request.outputs)
    return (
        WITHOUT_EFFECT.issuperset(request.parameters)
        and not any(tensor.parameters for tensor in request.inputs)
        and all({CLASSIFICATION}.issuperset(parameters) for parameters in outputs)
    )


def encoded(elements: Sequence[Located]) -> list[Buffer]:
    """Return the elements of a checked request's inputs as they travel."""
    return [located.encoded for located in elements if not isinstance(located, RegionElements)]


def payloads(plan: Plan, template: Template[Plan], message: bytes, rest: int) -> list[Buffer]:
    """Return the same of a request that fits a template, without parsing it."""
    return [
        template.elements(message, rest, source) if isinstance(source, int) else source.encoded
        for source in plan.sources or ()
        if not isinstance(source, RegionElements)
    ]
