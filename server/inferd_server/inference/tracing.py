"""Traced requests: a call around the call, which notes what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inferd.tensors import Buffer

from inferd_server.errors import InferdError
from inferd_server.monitoring.chance import Chance, Draw
from inferd_server.monitoring.tracing.context import TRACE, TraceContext, begin_trace
from inferd_server.monitoring.tracing.spans import RequestTrace
from inferd_server.transport.call import Call, Metadata
from inferd_server.transport.call_wrapper import CallWrapper
from inferd_server.transport.status import code_name, sentence

OK, CANCELLED = "OK", "CANCELLED"


class Tracing:
    """Requests that are traced. Any thread may call any method."""

    def __init__(
        self,
        share: float,
        put: Callable[[RequestTrace], None],
        draw: Draw,
        clock: Callable[[], float],
    ) -> None:
        """Trace nothing yet.

        Args:
            share: part of the requests whose caller does not decide.
            put: gets those that are over; never waits.
            draw: makes random numbers.
            clock: monotonic seconds.
        """
        self._chosen = Chance(share, draw)
        self._put = put
        self._draw = draw
        self._clock = clock
        # By their own traceparent, which is the first metadata of the call that stands for them.
        self._open: dict[str | bytes, RequestTrace] = {}

    def around(self, infer: Callable[[Call], None]) -> Callable[[Call], None]:
        """Return a handler of ModelInfer that traces some of the calls."""
        chosen, draw = self._chosen, self._draw

        def traced(call: Call) -> None:
            metadata = call.metadata
            if chosen.left > 1 and len(metadata) == 1 and metadata[0][0] != TRACE:
                # Most callers, who send what all do and are passed over: no more is to be done.
                chosen.left -= 1
                infer(call)
                return
            context = begin_trace(metadata, chosen, draw)
            infer(call if context is None else self._begin(call, context))

        return traced

    def of(self, metadata: Metadata) -> RequestTrace | None:
        """Return what is noted of the request of a call; None if it is not traced."""
        if not metadata:
            return None
        key, value = metadata[0]
        return self._open.get(value) if key == TRACE else None

    def _begin(self, call: Call, context: TraceContext) -> TracedCall:
        method = "ModelInfer" if call.stream is None else "ModelStreamInfer"
        header = context.header
        self._open[header] = RequestTrace(context, method, named_model(call.request), self._clock())
        return TracedCall(call, header, self._end)

    def _end(self, header: str, code: str, text: str = "") -> None:
        """Hand over a request that is answered; the first answer counts."""
        trace = self._open.pop(header, None)
        if trace is not None:
            trace.ended, trace.code, trace.text = self._clock(), code, text
            self._put(trace)


class TracedCall(CallWrapper):
    """A call that is traced, as the call itself."""

    __slots__ = ("_end", "_header", "_metadata")

    def __init__(self, call: Call, header: str, end: Callable[..., None]) -> None:
        """Stand for a call; `end` gets its own traceparent and the status when it is answered."""
        super().__init__(call)
        self._header = header
        self._end = end
        kept = [pair for pair in call.metadata if pair[0] != TRACE]
        self._metadata: Metadata = ((TRACE, header), *kept)

    @property
    def metadata(self) -> Metadata:
        """The caller's, and the trace that what follows belongs to."""
        return self._metadata

    def reply(self, parts: Sequence[Buffer], trailing: Metadata = ()) -> None:
        """Answer, and end the trace; not if the answer cannot be sent, and the call stays open."""
        code = CANCELLED if self._call.cancelled else OK
        self._call.reply(parts, trailing)
        self._end(self._header, code)

    def fail(self, error: InferdError) -> None:
        """Answer with a status, and end the trace."""
        self._call.fail(error)
        self._end(self._header, code_name(error), sentence(error))


def named_model(message: bytes) -> str:
    """Return the model that a request names, if it does so first and shortly, as all clients do."""
    # The first field's tag and its length. Source: proto/inferd/oip/v2/inference.proto.
    if message[:1] != b"\n" or len(message) < 2 or message[1] > 127:
        return ""
    return message[2 : 2 + message[1]].decode(errors="replace")
