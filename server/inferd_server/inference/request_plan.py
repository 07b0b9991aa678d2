"""The plan of a request: what its checks found out, kept for requests that look like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inferd.tensors import Buffer
from inferd_engines.engine import RowSpec

from inferd_server.batching.slots import Arena
from inferd_server.cache.key import Form
from inferd_server.inference.inputs import Located, RegionElements, SharedElements, Source
from inferd_server.inference.response import OutputTarget, Responses
from inferd_server.inference.sampling import Sampler
from inferd_server.inference.shared_memory import Region, RegionTable
from inferd_server.inference.validation import Admitted, Input, RegionRange, Urgency
from inferd_server.models.version import Handle
from inferd_server.monitoring.series import Series
from inferd_server.sequences.steps import Step


@dataclass(frozen=True, slots=True)
class RegionUse:
    """A part of a shared memory region, and the input or output that is there."""

    region: Region
    part: RegionRange
    owner: str

    def current(self, regions: RegionTable) -> bool:
        """True unless the name is another region's by now.

        Raises:
            RegionNotFound: it is nobody's.
        """
        return regions.find(self.part, self.owner) is self.region


@dataclass(frozen=True, slots=True)
class Plan:
    """What the checks of a request found out, true of every request that looks like it."""

    handle: Handle
    arena: Arena
    series: Series
    specs: tuple[RowSpec, ...]
    rows: int
    nbytes: int
    batched: bool
    responses: Responses
    sources: tuple[Source, ...] | None
    """For each input of the signature; None if every such request must be checked anew."""
    urgency: Urgency
    step: Step | None
    """Its place in a sequence."""
    places: tuple[RegionUse, ...] = ()
    """Regions that all of this is true of, outputs first."""
    form: Form | None = None
    """What the response cache knows of such requests; None: they all run."""
    alone: bool = False
    """True if they share no run: they give a value that holds for all rows of one."""
    sampler: Sampler | None = None
    """Hands some of them to the tap; None: they are not sampled."""

    def current(self, regions: RegionTable) -> bool:
        """True while all its regions are registered as they were.

        Raises:
            RegionNotFound: one is registered no more.
        """
        return all(place.current(regions) for place in self.places)


def find_sources(
    admitted: Admitted, raw: Sequence[Buffer], elements: Sequence[Located]
) -> tuple[Source, ...] | None:
    """Say where the next request's inputs are; None if it must be checked anew.

    Text and booleans are checked element by element, and typed contents are parsed.
    """
    found = [
        _source(item, raw, located) for item, located in zip(admitted.inputs, elements, strict=True)
    ]
    sources = tuple(source for source in found if source is not None)
    return sources if len(sources) == len(found) else None


def _source(item: Input, raw: Sequence[Buffer], located: Located) -> Source | None:
    if isinstance(located, SharedElements):
        return located if item.left_out else None
    if item.tensor.dtype.kind in "Ob":
        return None
    if isinstance(located, RegionElements):
        return located
    return next((index for index, data in enumerate(raw) if data is item.source), None)


def find_places(
    admitted: Admitted, targets: Sequence[OutputTarget], elements: Sequence[Located]
) -> tuple[RegionUse, ...]:
    """Return every part of shared memory that a request uses, in the order of the checks."""
    outputs = [
        RegionUse(target.region, target.part, f"output {target.name!r}")
        for target in targets
        if target.region is not None and target.part is not None
    ]
    inputs = [
        RegionUse(located.region, item.source, f"input {item.tensor.name!r}")
        for item, located in zip(admitted.inputs, elements, strict=True)
        if isinstance(located, RegionElements) and isinstance(item.source, RegionRange)
    ]
    return (*outputs, *inputs)
