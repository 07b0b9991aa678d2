"""One stream has its share of a queue; nothing of it is lost, and others need not wait for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from inferd_server.batching.decision import BatchBounds, Decision
from inferd_server.batching.queue import BatchQueue
from inferd_server.batching.stream_share import BATCHES

from tests.fakes.clock import FakeClock
from tests.server.batching.requests import Request

STREAM, ANOTHER = object(), object()


def made(max_rows: int = 2) -> BatchQueue[Request]:
    return BatchQueue(BatchBounds(max_rows), FakeClock())


def fill(queue: BatchQueue[Request], stream: object | None, count: int) -> list[Request]:
    requests = [Request(stream=stream) for _ in range(count)]
    assert all(queue.submit(request) for request in requests)
    return requests


def all_runs(queue: BatchQueue[Request]) -> list[Request]:
    found: list[Request] = []
    while True:
        decision: Decision[Request] = queue.poll()
        if not decision.run:
            return found
        found += decision.run


def test_who_comes_after_a_full_stream_waits_for_its_share_alone() -> None:
    queue = made()
    long = fill(queue, STREAM, 100)
    (other,) = fill(queue, None, 1)
    assert (queue.rows, queue.waiting_requests) == (101, 101)
    order = all_runs(queue)
    assert order.index(other) == BATCHES * 2
    assert [request for request in order if request is not other] == long
    assert (queue.rows, queue.waiting_requests) == (0, 0)


def test_streams_beside_each_other_have_equal_parts() -> None:
    queue = made(max_rows=1)
    first, second = fill(queue, STREAM, 50), fill(queue, ANOTHER, 50)
    half = all_runs(queue)[:50]
    assert abs(len(set(half) & set(first)) - len(set(half) & set(second))) <= 2 * BATCHES


def test_a_stream_alone_fills_its_batches() -> None:
    queue = made(max_rows=8)
    fill(queue, STREAM, 64)
    for _ in range(8):
        assert len(queue.poll().run) == 8


def test_what_is_withdrawn_lets_the_next_come_forward() -> None:
    queue = made(max_rows=1)
    long = fill(queue, STREAM, 6)
    for request in (long[0], long[3], long[4]):
        assert queue.withdraw(request)
        assert not queue.withdraw(request)
    assert queue.rows == 3
    assert all_runs(queue) == [long[1], long[2], long[5]]


def test_a_queue_that_ends_gives_everything_back() -> None:
    queue = made()
    requests = {*fill(queue, STREAM, 20), *fill(queue, None, 3), *fill(queue, ANOTHER, 20)}
    assert set(queue.drain()) == requests
    assert (queue.rows, queue.waiting_requests) == (0, 0)
    assert queue.drain() == []


def test_a_closed_queue_is_worked_off() -> None:
    queue = made(max_rows=1)
    long = fill(queue, STREAM, 10)
    queue.close()
    found: list[Request] = []
    while (decision := queue.take()) is not None:
        found += decision.run
    assert found == long


@given(
    st.lists(st.tuples(st.sampled_from([None, STREAM, ANOTHER]), st.integers(1, 4)), max_size=40),
    st.integers(1, 4),
    st.randoms(),
)
def test_every_request_runs_once_or_is_withdrawn_and_streams_keep_their_order(
    asked: list[tuple[object | None, int]], max_rows: int, random: object
) -> None:
    queue = made(max_rows)
    given_in: list[Request] = []
    ran: list[Request] = []
    gone: list[Request] = []
    for stream, size in asked:
        request = Request(rows=size, stream=stream)
        given_in.append(request)
        queue.submit(request)
        act = random.random()  # type: ignore[attr-defined]
        if act < 0.3:
            ran += queue.poll().run
        elif act < 0.5:
            chosen = random.choice(given_in)  # type: ignore[attr-defined]
            if queue.withdraw(chosen):
                gone.append(chosen)
    ran += all_runs(queue)
    assert len(ran) + len(gone) == len(given_in)
    assert set(ran) | set(gone) == set(given_in)
    for stream in (STREAM, ANOTHER):
        of_it = [request for request in given_in if request.stream is stream and request in ran]
        assert [request for request in ran if request.stream is stream] == of_it
    assert queue.rows == 0
