"""What the checks of a request found out, kept for requests that look like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inferd.tensors import Buffer

from inferd_server.front.admission import Admitted
from inferd_server.front.answer import Target
from inferd_server.repository.handle import Handle
from inferd_server.scheduler.slot import RowSpec


@dataclass(frozen=True, slots=True)
class Plan:
    """What the checks of a request found out, true of every request that looks like it."""

    handle: Handle
    specs: tuple[RowSpec, ...]
    rows: int
    nbytes: int
    targets: tuple[Target, ...]
    order: tuple[int, ...] = ()
    """For each input of the signature, which of the raw payloads is its own."""


@dataclass(frozen=True, slots=True)
class Echo:
    """What of a request stands in its response."""

    model_name: str
    id: str


def payload_order(
    admitted: Admitted, raw: Sequence[Buffer], targets: Sequence[Target]
) -> tuple[int, ...]:
    """Say which raw payload each input takes; empty if the next request must be checked anew.

    Text and booleans are checked element by element, and a region may be another one by then.
    """
    if any(target.region is not None for target in targets):
        return ()
    order = []
    for item in admitted.inputs:
        found = [index for index, data in enumerate(raw) if data is item.source]
        if not found or item.tensor.dtype.kind in "Ob":
            return ()
        order.append(found[0])
    return tuple(order)
