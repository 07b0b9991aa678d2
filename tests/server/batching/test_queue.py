"""The queue, by one thread or with one that waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from inferd_server.batching.decision import BatchBounds, Decision
from inferd_server.batching.queue import BatchQueue

from tests.fakes.clock import FakeClock
from tests.server.batching.requests import Request

Taken = Future["Decision[Request] | None"]
WITHIN = 30.0


class QueueMachine(RuleBasedStateMachine):
    """Random operations; every request leaves once, by one door."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.queue: BatchQueue[Request] = BatchQueue(BatchBounds(4), self.clock)
        self.inside: list[Request] = []
        self.closed = False

    @rule(rows=st.integers(1, 6), key=st.sampled_from("ab"), patience=st.none() | st.integers(0, 3))
    def submit(self, rows: int, key: str, patience: int | None) -> None:
        now = self.clock()
        request = Request(rows, key, now, None if patience is None else now + patience)
        assert self.queue.submit(request) is not self.closed
        if not self.closed:
            self.inside.append(request)

    @rule(seconds=st.integers(0, 3))
    def pass_time(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: self.inside or self.closed)
    @rule()
    def take(self) -> None:
        decision = self.queue.take()
        if decision is None:
            assert self.closed
            assert not self.inside
            return
        for request in (*decision.run, *decision.drop):
            self.inside.remove(request)

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.inside))
        assert self.queue.withdraw(request)
        assert not self.queue.withdraw(request)
        self.inside.remove(request)

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.inside)).cancelled = True

    @rule()
    def withdraw_a_stranger(self) -> None:
        assert not self.queue.withdraw(Request())

    @rule()
    def close(self) -> None:
        self.queue.close()
        self.closed = True

    @rule()
    def drain(self) -> None:
        assert self.queue.drain() == self.inside
        self.inside.clear()
        self.closed = True

    @invariant()
    def rows_are_those_that_wait(self) -> None:
        assert self.queue.rows == sum(request.rows for request in self.inside)


TestQueueMachine = QueueMachine.TestCase


@pytest.fixture
def taker() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


def waiting(queue: BatchQueue[Request], clock: FakeClock, taker: ThreadPoolExecutor) -> Taken:
    """Start a `take` that waits: it reads the clock under the lock that submitting needs."""
    taken = taker.submit(queue.take)
    clock.await_reads(1)
    return taken


def test_take_wakes_when_a_request_comes(taker: ThreadPoolExecutor) -> None:
    clock = FakeClock()
    queue: BatchQueue[Request] = BatchQueue(BatchBounds(4), clock)
    taken = waiting(queue, clock, taker)
    request = Request()
    assert queue.submit(request)
    assert taken.result(WITHIN) == Decision(run=(request,))


@pytest.mark.parametrize("end", ["close", "drain"])
def test_take_wakes_when_the_queue_ends(taker: ThreadPoolExecutor, end: str) -> None:
    clock = FakeClock()
    queue: BatchQueue[Request] = BatchQueue(BatchBounds(4), clock)
    first = waiting(queue, clock, taker)
    second = taker.submit(queue.take)
    clock.await_reads(2)
    getattr(queue, end)()
    assert first.result(WITHIN) is None
    assert second.result(WITHIN) is None


def test_take_waits_for_company_until_the_delay_has_passed(taker: ThreadPoolExecutor) -> None:
    clock = FakeClock()
    # So short a delay that the thread looks at the clock again and again.
    queue: BatchQueue[Request] = BatchQueue(BatchBounds(4, 0.001), clock)
    request = Request()
    queue.submit(request)
    taken = taker.submit(queue.take)
    clock.await_reads(5)
    assert not taken.done()
    clock.advance(0.001)
    assert taken.result(WITHIN) == Decision(run=(request,), waited=0.001)


def test_take_sleeps_through_the_delay() -> None:
    reads: list[float] = []

    def clock() -> float:
        reads.append(time.monotonic())
        return reads[-1]

    queue: BatchQueue[Request] = BatchQueue(BatchBounds(4, 0.05), clock)
    arrived = time.monotonic()
    queue.submit(Request(arrived=arrived))
    decision = queue.take()
    assert decision is not None
    assert reads[-1] >= arrived + 0.05
    assert 0 < decision.waited <= reads[-1] - arrived
    assert len(reads) <= 4


def test_who_polls_is_told_how_long_the_batch_had_to_fill() -> None:
    clock = FakeClock()
    queue: BatchQueue[Request] = BatchQueue(BatchBounds(4, max_delay=2.0), clock)
    for _ in range(2):
        assert queue.poll() == Decision()
        queue.submit(Request(arrived=clock()))
        assert queue.poll().wake == clock() + 2.0
        clock.advance(1.5)
        assert not queue.poll().run
        clock.advance(0.5)
        decision = queue.poll()
        assert (len(decision.run), decision.waited) == (1, 2.0)
        # Nothing waits for company between two batches.
        clock.advance(7.0)


def test_a_full_batch_ends_the_wait(taker: ThreadPoolExecutor) -> None:
    clock = FakeClock()
    queue: BatchQueue[Request] = BatchQueue(BatchBounds(2, 1000.0), clock)
    first, second = Request(), Request()
    queue.submit(first)
    taken = waiting(queue, clock, taker)
    clock.advance(2.0)
    queue.submit(second)
    assert taken.result(WITHIN) == Decision(run=(first, second), waited=2.0, full=True)


def test_a_full_batch_is_taken_although_another_thread_waits_for_company(
    taker: ThreadPoolExecutor,
) -> None:
    clock = FakeClock()
    queue: BatchQueue[Request] = BatchQueue(BatchBounds(2, 1000.0), clock)
    threads = [taker.submit(queue.take) for _ in range(3)]
    clock.await_reads(3)
    given = [Request() for _ in range(6)]
    for request in given:
        queue.submit(request)
    decisions = [taken.result(WITHIN) for taken in threads]
    assert sorted(len(d.run) for d in decisions if d) == [2, 2, 2]


def test_closing_ends_the_wait_for_company(taker: ThreadPoolExecutor) -> None:
    clock = FakeClock()
    queue: BatchQueue[Request] = BatchQueue(BatchBounds(2, 1000.0), clock)
    request = Request()
    queue.submit(request)
    taken = waiting(queue, clock, taker)
    queue.close()
    assert taken.result(WITHIN) == Decision(run=(request,))
    assert queue.take() is None


def test_a_withdrawn_leader_leaves_the_others_waiting(taker: ThreadPoolExecutor) -> None:
    clock = FakeClock()
    queue: BatchQueue[Request] = BatchQueue(BatchBounds(2, 1000.0), clock)
    leader, second, third = (Request() for _ in range(3))
    queue.submit(leader)
    taken = waiting(queue, clock, taker)
    assert queue.withdraw(leader)
    queue.submit(second)
    queue.submit(third)
    decision = taken.result(WITHIN)
    assert decision is not None
    assert decision.run == (second, third)


def test_a_closed_queue_hands_out_what_waits_and_takes_no_more() -> None:
    queue: BatchQueue[Request] = BatchQueue(BatchBounds(1), FakeClock())
    given = [Request(), Request()]
    for request in given:
        queue.submit(request)
    queue.close()
    assert not queue.submit(Request())
    assert queue.take() == Decision(run=(given[0],), full=True)
    assert queue.take() == Decision(run=(given[1],), full=True)
    assert queue.take() is None


def test_a_drained_queue_is_empty_and_takes_no_more() -> None:
    queue: BatchQueue[Request] = BatchQueue(BatchBounds(1), FakeClock())
    request = Request(rows=3)
    queue.submit(request)
    assert queue.drain() == [request]
    assert (queue.rows, queue.submit(Request()), queue.take()) == (0, False, None)


def test_every_request_comes_out_once_whatever_the_threads_do() -> None:
    queue: BatchQueue[Request] = BatchQueue(BatchBounds(4, 0.0001), time.monotonic)
    out: list[Request] = []
    given = [[Request(rows=1 + i % 3, key="ab"[i % 2]) for i in range(300)] for _ in range(3)]

    def take() -> None:
        while (decision := queue.take()) is not None:
            out.extend((*decision.run, *decision.drop))

    def submit(requests: list[Request]) -> None:
        for index, request in enumerate(requests):
            request.arrived = time.monotonic()
            assert queue.submit(request)
            if index % 7 == 0 and queue.withdraw(request):
                out.append(request)

    takers = [threading.Thread(target=take) for _ in range(3)]
    givers = [threading.Thread(target=submit, args=(requests,)) for requests in given]
    for thread in (*takers, *givers):
        thread.start()
    for thread in givers:
        thread.join(WITHIN)
    queue.close()
    for thread in takers:
        thread.join(WITHIN)
        assert not thread.is_alive()
    assert sorted(map(id, out)) == sorted(id(r) for requests in given for r in requests)
    assert queue.rows == 0
