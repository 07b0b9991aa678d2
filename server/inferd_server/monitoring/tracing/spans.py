"""Spans of a request that is over, made from the times that were noted meanwhile. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple, TypeAlias

from inferd_server.monitoring.chance import Draw
from inferd_server.monitoring.phases import Execution, Phases
from inferd_server.monitoring.tracing.context import (
    SPAN_BYTES,
    TRACE_BYTES,
    TraceContext,
    new_id,
)

SERVICE = "inference.GRPCInferenceService"
SAME_S = 1e-6
"""Seconds between the times at which two requests of one batch were taken; that of the other
side of a link is a difference that was added again."""
FAULTS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Codes with which a server's span counts as failed. Source: OpenTelemetry's gRPC conventions."""


@dataclass(frozen=True, slots=True)
class LostAttempt:
    """A try to run a request that ended with its worker process; times in monotonic seconds."""

    since: float
    at: float
    reason: str
    began: bool
    """Whether it ran when the worker died."""


class RanRequest(NamedTuple):
    """The run that a request was answered from."""

    version: str
    rows: int
    arrived: float
    """When it began to wait, in monotonic seconds."""
    phases: Phases

    @property
    def taken(self) -> float:
        """When its batch was taken, in monotonic seconds."""
        return self.arrived + self.phases.queue

    @property
    def ended(self) -> float:
        """When the engine was done with it, in monotonic seconds."""
        return self.taken + self.phases.run.gather + self.phases.run.compute


@dataclass(slots=True)
class RequestTrace:
    """A request that is traced: what is noted of it until it is answered."""

    context: TraceContext
    method: str
    model: str
    """As the caller names it."""
    began: float
    """Monotonic seconds."""
    lost: list[LostAttempt] = field(default_factory=list)
    ran: RanRequest | None = None
    ended: float = 0.0
    """Monotonic seconds."""
    code: str = "OK"
    """Name of the status."""
    text: str = ""
    """Of the error."""


Attributes: TypeAlias = tuple[tuple[str, str | int | bool], ...]
"""Names and values."""


class Span(NamedTuple):
    """What a receiver is told of one span; times in monotonic seconds."""

    name: str
    trace: bytes
    span: bytes
    parent: bytes
    begin: float
    end: float
    attributes: Attributes = ()
    links: Sequence[tuple[bytes, bytes]] = ()
    """Traces and spans."""
    error: str | None = None
    """None: it did not fail."""
    serves: bool = False
    """Whether it answers a call."""
    state: str = ""


@dataclass(slots=True)
class TracedBatch:
    """A batch, and the traced requests that were in it."""

    trace: bytes
    span: bytes
    model: str
    version: str
    taken: float
    run: Execution
    requests: list[tuple[bytes, bytes]]
    """Traces and spans."""

    def told(self) -> Span:
        """Return its span, which is in a trace of its own: it belongs to none of the requests."""
        end = self.taken + self.run.gather + self.run.compute
        about = (
            ("inferd.model", self.model),
            ("inferd.version", self.version),
            ("inferd.rows", self.run.rows),
        )
        return Span(
            f"batch {self.model}", self.trace, self.span, b"", self.taken, end,
            about, self.requests,
        )  # fmt: skip


class Batches:
    """Finds the requests that shared a batch. One thread."""

    def __init__(self, draw: Draw) -> None:
        """Know none; `draw` makes the ids."""
        self._draw = draw
        # Those of other processes have equal runs, and not the same object.
        self._old: dict[Hashable, list[TracedBatch]] = {}
        self._new: dict[Hashable, list[TracedBatch]] = {}

    def of(self, request: RequestTrace, ran: RanRequest) -> TracedBatch:
        """Return the batch of a request, which is noted in it."""
        run, taken = ran.phases.run, ran.taken
        key = (request.model, ran.version, run.rows, run.gather, run.compute)
        alike = (*self._new.get(key, ()), *self._old.get(key, ()))
        batch = next((one for one in alike if abs(one.taken - taken) < SAME_S), None)
        if batch is None:
            trace, span = new_id(TRACE_BYTES, self._draw), new_id(SPAN_BYTES, self._draw)
            batch = TracedBatch(trace, span, request.model, ran.version, taken, run, [])
            self._new.setdefault(key, []).append(batch)
        batch.requests.append((request.context.trace, request.context.span))
        return batch

    def over(self) -> list[TracedBatch]:
        """Return the batches that were there the last time: their requests all came by now."""
        found, self._old, self._new = self._old, self._new, {}
        return list(chain.from_iterable(found.values()))


class SpanTree:
    """Makes the spans below a call's; times in monotonic seconds."""

    def __init__(self, context: TraceContext, draw: Draw) -> None:
        """Make spans of a trace; `draw` makes their ids."""
        self._context = context
        self._draw = draw

    def span(
        self,
        name: str,
        begin: float,
        end: float,
        attributes: Attributes = (),
        parent: Span | None = None,
        links: Sequence[tuple[bytes, bytes]] = (),
        error: str | None = None,
    ) -> Span:
        """Return a span below another one, or below the call's."""
        above = self._context.span if parent is None else parent.span
        ident = new_id(SPAN_BYTES, self._draw)
        return Span(name, self._context.trace, ident, above, begin, end, attributes, links, error)


def spans_of(request: RequestTrace, batches: Batches, draw: Draw) -> Iterator[Span]:
    """Yield the spans of a request: the call's, and below it what it went through.

    Args:
        request: that is over.
        batches: where its batch is found.
        draw: makes the ids.
    """
    ran, lost, tree = request.ran, request.lost, SpanTree(request.context, draw)
    yield call_span(request)
    waits = [*(one.since for one in lost), *(() if ran is None else (ran.arrived,))]
    if waits:
        yield tree.span("decode", request.began, waits[0])
    for number, one in enumerate(lost, 1):
        which = ("inferd.attempt", number), ("inferd.ran", one.began)
        yield tree.span("attempt", one.since, one.at, which, error=one.reason)
    if ran is not None:
        since = max(ran.arrived, lost[-1].at) if lost else ran.arrived
        attempt = tree.span("attempt", since, ran.ended, (("inferd.attempt", len(lost) + 1),))
        yield attempt
        yield from run_spans(ran, since, batches.of(request, ran), attempt, tree)
        yield tree.span("reply", ran.ended, request.ended)


def call_span(request: RequestTrace) -> Span:
    """Return the span of the call itself."""
    context, ran = request.context, request.ran
    about: Attributes = (
        ("rpc.system", "grpc"),
        ("rpc.service", SERVICE),
        ("rpc.method", request.method),
        ("rpc.response.status_code", request.code),
        ("inferd.model", request.model),
    )
    if ran is not None:
        about += ("inferd.version", ran.version), ("inferd.rows", ran.rows)
    if request.text:
        about += (("error.message", request.text),)
    error = request.text if request.code in FAULTS else None
    return Span(
        f"{SERVICE}/{request.method}", context.trace, context.span, context.parent,
        request.began, request.ended, about, error=error, serves=True, state=context.state,
    )  # fmt: skip


def run_spans(
    ran: RanRequest, since: float, batch: TracedBatch, attempt: Span, tree: SpanTree
) -> Iterator[Span]:
    """Yield what a request waited for and ran in, without what took no time.

    Args:
        ran: the run that answered it.
        since: when the attempt began, in monotonic seconds.
        batch: that it ran in.
        attempt: what they are below.
        tree: makes them.
    """
    run, taken = ran.phases.run, ran.taken
    waited = max(since, taken - min(ran.phases.queue, run.waited))
    gathered = taken + run.gather
    for name, begin, end in (
        ("queue", since, waited),
        ("batch_wait", waited, taken),
        ("gather", taken, gathered),
    ):
        if end > begin:
            yield tree.span(name, begin, end, parent=attempt)
    link = (batch.trace, batch.span)
    about = (("inferd.batch_rows", run.rows),)
    yield tree.span("compute", gathered, ran.ended, about, attempt, (link,))
