"""A cache whose requests are admitted to a list, from which tests let them end as they like."""

from __future__ import annotations

from inferd_server.batching.timers import Timers
from inferd_server.cache.answers import Answers
from inferd_server.cache.flight import Flights
from inferd_server.cache.key import Form, KeyBase, Owner
from inferd_server.cache.remote import Remote
from inferd_server.cache.response_cache import ResponseCache
from inferd_server.cache.store import Store
from inferd_server.errors import InferdError
from inferd_server.monitoring.metrics import Metrics
from inferd_server.monitoring.statistics import Statistics
from inferd_server.transport.call import Call

from tests.fakes.asking import FakeCall
from tests.fakes.clock import FakeClock

TTL = 60.0
OWNER = Owner("model", 1, "digest")


class Herd:
    """The cache, and the leaders that run at the moment, in the order in which they began."""

    def __init__(
        self, *, max_bytes: int = 2**20, max_waiting: int = 1000, remote: Remote | None = None
    ) -> None:
        self.clock = FakeClock()
        self.alarms = Timers(self.clock, threaded=False)
        self.store = Store(max_bytes)
        self.store.retain([OWNER])
        self.flights = Flights(max_waiting)
        answers = Answers(self.clock, lambda: 0.0)
        self.cache = ResponseCache(
            self.store, self.flights, self.alarms, remote, answers, self.clock
        )
        self.metrics = Metrics(lambda: 0.0)
        self.statistics = Statistics()
        self.running: list[tuple[Call, bytes]] = []
        self.owner = OWNER
        self.refusal: InferdError | None = None
        """What admission answers those who lead from now on."""

    def form(self) -> Form:
        series = self.metrics.of(self.owner.model, self.owner.version)
        return Form(KeyBase(self.owner, []), self.owner, TTL, None, self.statistics, series)

    def ask(self, content: bytes, *, ident: bytes = b"", deadline: float | None = None) -> FakeCall:
        """Send a request as the front does."""
        call = FakeCall(content + b"|" + ident, deadline)
        self.admit(call, self.clock(), 1)
        return call

    def admit(self, call: Call, started: float, attempt: int) -> None:
        content, ident = call.request.split(b"|")
        lead = self.cache.enter(call, ident, self.form(), [content], started, attempt, self.admit)
        if lead is not None and self.refusal is not None:
            lead.fail(self.refusal)
        elif lead is not None:
            self.running.append((lead, content))

    def finish(self, value: bytes, index: int = 0) -> bytes:
        """Let a running request end with a response; return what it asked for."""
        call, content = self.running.pop(index)
        call.reply((value, call.request.split(b"|")[1]))
        return content

    def fail(self, error: InferdError, index: int = 0) -> None:
        """Let a running request end with an error."""
        call, _ = self.running.pop(index)
        call.fail(error)

    @property
    def results(self) -> dict[str, int]:
        """What was counted, by result."""
        return self.metrics.of("model", 1).snapshot().cached
