"""Any order of events: one answer each, the right one, never too old, and no more runs than due."""

from __future__ import annotations

import re

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from inferd_server.cache.store import OVERHEAD
from inferd_server.errors import Cancelled, DeadlinePassed, EngineFailure, InferdError

from tests.fakes.asking import FakeCall
from tests.server.cache.herd import TTL, Herd

CONTENTS = [b"a", b"b", b"c"]
ERRORS: list[InferdError] = [Cancelled(), DeadlinePassed(), EngineFailure()]
MAX_BYTES = 2 * (OVERHEAD + 40)


class HerdMachine(RuleBasedStateMachine):
    """Callers and runs; a response tells what it is for and when it was made."""

    def __init__(self) -> None:
        super().__init__()
        self.herd = Herd(max_bytes=MAX_BYTES)
        self.calls: list[FakeCall] = []
        self.open: list[FakeCall] = []
        """Of these, those without an answer."""

    @rule(content=st.sampled_from(CONTENTS), patience=st.none() | st.floats(0.5, 100.0))
    def ask(self, content: bytes, patience: float | None) -> None:
        deadline = None if patience is None else self.herd.clock() + patience
        ident = b"#%d" % len(self.calls)
        call = self.herd.ask(content, ident=ident, deadline=deadline)
        self.calls.append(call)
        self.open.append(call)

    @precondition(lambda self: self.herd.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.herd.running) - 1))
        _, content = self.herd.running[index]
        self.herd.finish(b"%s@%d" % (content, self.herd.clock()), index)

    @precondition(lambda self: self.herd.running)
    @rule(data=st.data(), error=st.sampled_from(ERRORS))
    def fail(self, data: st.DataObject, error: InferdError) -> None:
        self.herd.fail(error, data.draw(st.integers(0, len(self.herd.running) - 1)))

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def go_away(self, data: st.DataObject) -> None:
        # A leader's job would be cancelled, which is one of the errors that a run ends with.
        leaders = {call.request for call, _ in self.herd.running}
        call = data.draw(st.sampled_from(self.calls))
        if call.request not in leaders:
            call.cancel()

    @rule(seconds=st.integers(1, 40))
    def wait(self, seconds: int) -> None:
        self.herd.clock.advance(seconds)
        self.herd.alarms.ring()

    @invariant()
    def answers_are_right(self) -> None:
        # Looked at after every step, so that what is answered was answered just now.
        for call in [call for call in self.open if call.answers]:
            self.open.remove(call)
            if isinstance(call.answer, bytes):
                content, ident = call.request.split(b"|#")
                made_for, made, whose = re.split(b"[@#]", call.answer)
                assert (made_for, whose) == (content, ident)
                assert self.herd.clock() - int(made) < TTL

    @invariant()
    def nothing_equal_runs_twice_and_nobody_waits_for_nothing(self) -> None:
        running = [content for _, content in self.herd.running]
        assert len(running) == len(set(running))
        assert {call.request.split(b"|")[0] for call in self.open} == set(running)
        assert self.herd.flights.waiting == len(self.open) - len(running)
        assert self.herd.store.nbytes <= MAX_BYTES

    def teardown(self) -> None:
        while self.herd.running:
            self.herd.fail(EngineFailure())
        assert all(len(call.answers) == 1 for call in self.calls)
        assert self.herd.metrics.of("model", 1).snapshot().in_flight == 0


TestHerd = HerdMachine.TestCase
TestHerd.settings = settings(max_examples=50)
