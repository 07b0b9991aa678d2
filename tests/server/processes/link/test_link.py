"""Requests from fronts to a worker and back, over real shared memory and fake engines."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from inferd.tensors import Array
from inferd_engines.engine import EngineError
from inferd_server.batching.fair_share import FairShare
from inferd_server.errors import (
    Cancelled,
    DeadlinePassed,
    EngineFailure,
    HandleRetired,
    InvalidInput,
    QueueFull,
    WorkerLost,
)
from inferd_server.processes.link.layout import Layout

from tests.fakes.engine import DOUBLING, FakeEngine, double
from tests.server.callers import ANSWERED_WITHIN, Caller, rows_of
from tests.server.processes.link.bench import LAYOUT, Target, bench


def test_requests_of_two_fronts_share_a_run_and_each_gets_its_rows() -> None:
    engine = FakeEngine()
    with bench(2) as made:
        target = made.serve(engine)
        engine.hold()
        first = made.fronts[0].send(target, 1.0)
        assert engine.running.wait(10)
        others = [made.fronts[i % 2].send(target, 10.0 + i, 20.0 + i) for i in range(4)]
        engine.release()
        assert first.wait().output == rows_of(2)
        for index, caller in enumerate(others):
            assert caller.wait().output == rows_of(2 * (10 + index), 2 * (20 + index))
        assert [batch.rows for batch in engine.batches] == [1, 8]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 10**6).map(float), min_size=1, max_size=5), max_size=60))
def test_everybody_gets_the_own_answer_while_the_rings_go_round(
    requests: list[list[float]],
) -> None:
    with bench(2) as made:
        target = made.serve(FakeEngine(), max_rows=7)
        callers: list[Caller] = []
        for index, values in enumerate(requests):
            callers.append(made.fronts[index % 2].send(target, *values))
            if index >= LAYOUT.requests:
                callers[index - LAYOUT.requests].wait()
        for values, caller in zip(requests, callers, strict=True):
            if caller.wait().errors:
                assert isinstance(caller.error, QueueFull)
            else:
                assert caller.output == rows_of(*(2 * value for value in values))


def test_cancelled_and_expired_requests_get_no_engine_time() -> None:
    engine = FakeEngine()
    with bench() as made:
        target = made.serve(engine)
        front = made.fronts[0]
        engine.hold()
        running = front.send(target, 1.0)
        assert engine.running.wait(10)
        late = front.send(target, 2.0, deadline=time.monotonic() - 1)
        gone = front.send(target, 3.0)
        # Everything in flight is marked; what runs already is answered all the same.
        for pending in [p for p in front.link._pending if p is not None]:
            if pending.job.rows and pending.job.slot.inputs[0][0, 0] == 3.0:
                front.link.cancel(pending.job)
        engine.release()
        assert running.wait().output == rows_of(2)
        assert isinstance(late.wait().error, DeadlinePassed)
        assert isinstance(gone.wait().error, Cancelled)
        assert len(engine.batches) == 1


def test_who_leaves_before_the_turn_of_the_model_comes_is_not_run() -> None:
    engines, share = [FakeEngine(), FakeEngine()], FairShare(1, time.monotonic)
    with bench() as made:
        targets = [made.serve(engine, share=share) for engine in engines]
        front = made.fronts[0]
        engines[0].hold()
        running = front.send(targets[0], 1.0)
        assert engines[0].running.wait(10)
        gone, stays = front.send(targets[1], 2.0), front.send(targets[1], 3.0)
        while not any(member.waiting for member in list(share._line)):
            pass
        (job,) = [p.job for p in front.link._pending if p and p.job.slot.inputs[0][0, 0] == 2.0]
        front.link.cancel(job)
        engines[0].release()
        assert running.wait().output == rows_of(2)
        assert isinstance(gone.wait().error, Cancelled)
        assert stays.wait().output == rows_of(6)
        assert [batch.rows for batch in engines[1].batches] == [1]


def test_a_request_fails_alone() -> None:
    def compute(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if (inputs["INPUT0"] == 7).any():
            raise EngineError("such a value")
        return double(inputs)

    engine = FakeEngine(DOUBLING, compute)
    with bench() as made:
        target = made.serve(engine)
        engine.hold()
        made.fronts[0].send(target, 0.0)
        assert engine.running.wait(10)
        callers = [made.fronts[0].send(target, value) for value in (1.0, 7.0, 3.0)]
        engine.release()
        assert callers[0].wait().output == rows_of(2)
        assert isinstance(callers[1].wait().error, EngineFailure)
        assert callers[2].wait().output == rows_of(6)


def test_a_model_that_is_not_there_any_more_is_told_so_even_if_there_is_no_other() -> None:
    with bench() as made:
        assert isinstance(made.fronts[0].send(Target(99), 1.0).wait().error, HandleRetired)
        target = made.serve(FakeEngine())
        assert made.fronts[0].send(target, 1.0).wait().output == rows_of(2)
        made.close_models()
        assert isinstance(made.fronts[0].send(target, 1.0).wait().error, HandleRetired)


def test_answers_larger_than_their_memory_are_refused_and_others_are_split() -> None:
    def widen(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"OUTPUT0": np.repeat(inputs["INPUT0"], 100, axis=1)}

    engine = FakeEngine(DOUBLING, widen)
    with bench() as made:
        target = made.serve(engine)
        engine.hold()
        made.fronts[0].send(target, 0.0)
        assert engine.running.wait(10)
        # A row is 1600 bytes: two requests of one row fit, one of three does not.
        small = [made.fronts[0].send(target, value) for value in (1.0, 2.0, 3.0)]
        large = made.fronts[0].send(target, 4.0, 5.0, 6.0)
        engine.release()
        assert [caller.wait().output[0][:1] for caller in small] == [[1.0], [2.0], [3.0]]
        assert isinstance(large.wait().error, InvalidInput)
        assert "answer_bytes" in str(large.error)


def test_an_answer_of_all_the_bytes_fits_and_a_larger_one_does_not() -> None:
    widths = {1.0: LAYOUT.answer_bytes // 4, 2.0: LAYOUT.answer_bytes // 4 + 1}

    def widen(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"OUTPUT0": np.zeros((1, widths[inputs["INPUT0"].item(0)]), np.float32)}

    with bench() as made:
        target = made.serve(FakeEngine(DOUBLING, widen))
        fits = made.fronts[0].send(target, 1.0).wait()
        assert len(fits.output[0]) == widths[1.0]
        larger = made.fronts[0].send(target, 2.0).wait()
        assert isinstance(larger.error, InvalidInput)


def test_a_front_that_does_not_read_delays_nobody_else_and_gets_everything_later() -> None:
    layout = Layout(requests=8, input_bytes=1 << 16, answer_bytes=256)
    with bench(2, layout) as made:
        target = made.serve(FakeEngine())
        slow, quick = made.fronts
        slow.consumes.clear()
        waiting = [slow.send(target, float(value)) for value in range(8)]
        for value in range(20):
            assert quick.send(target, float(value)).wait().output == rows_of(2 * value)
        slow.consumes.set()
        for value, caller in enumerate(waiting):
            assert caller.wait().output == rows_of(2 * value)


def test_the_places_of_a_front_are_bounded_and_come_back() -> None:
    engine = FakeEngine()
    with bench() as made:
        target = made.serve(engine)
        engine.hold()
        callers = [made.fronts[0].send(target, 1.0) for _ in range(LAYOUT.requests)]
        error = made.fronts[0].send(target, 1.0).wait().error
        assert isinstance(error, QueueFull)
        assert "max_requests" in str(error)
        engine.release()
        assert all(caller.wait().output == rows_of(2) for caller in callers)
        assert made.fronts[0].send(target, 5.0).wait().output == rows_of(10)


def test_a_link_whose_worker_died_answers_everything_and_begins_anew() -> None:
    engine = FakeEngine()
    with bench() as made:
        target = made.serve(engine)
        front = made.fronts[0]
        engine.hold()
        lost = [front.send(target, float(value)) for value in range(3)]
        assert engine.running.wait(10)
        # As if the worker were gone: it touches the memory no more.
        made.inbox.detach(0)
        for one in front.link.take_back():
            one.job.fail(WorkerLost("gone"))
        assert all(isinstance(caller.wait().error, WorkerLost) for caller in lost)
        made.inbox.attach(0)
        again = front.send(target, 4.0)
        engine.release()
        assert again.wait().output == rows_of(8)
        assert [caller.answers for caller in lost] == [1, 1, 1]


def test_memory_that_nobody_uses_goes_back_and_what_is_under_way_stays() -> None:
    large = Layout(requests=8, input_bytes=1 << 20, answer_bytes=1 << 20)
    with bench(layout=large) as made:
        engine = FakeEngine()
        target = made.serve(engine)
        (front,) = made.fronts
        rows = [float(number) for number in range(900)]
        assert front.send(target, *rows).wait().output == rows_of(*[2 * row for row in rows])
        before = os.fstat(made.memories[0]).st_blocks
        engine.hold()
        engine.running.clear()
        runs = front.send(target, 1.0, 2.0)
        assert engine.running.wait(ANSWERED_WITHIN)
        front.arena._pool.release_idle()
        made.links[0].trim()
        engine.release()
        assert runs.wait().output == rows_of(2.0, 4.0)
        front.arena._pool.release_idle()
        made.links[0].trim()
        assert made.links[0].traffic[1] == 0
        assert os.fstat(made.memories[0]).st_blocks < before
        # As before, on pages that are zeros.
        assert front.send(target, *rows).wait().output == rows_of(*[2 * row for row in rows])


def test_requests_of_several_fronts_run_in_the_order_of_their_arrival() -> None:
    engine = FakeEngine()
    with bench(3) as made:
        target = made.serve(engine, max_rows=1)
        engine.hold()
        made.fronts[0].send(target, 0.0)
        assert engine.running.wait(ANSWERED_WITHIN)
        callers = [made.fronts[n % 3].send(target, float(n)) for n in (5, 1, 3, 2, 4)]
        engine.release()
        for caller in callers:
            caller.wait()
        ran = [batch.inputs["INPUT0"][0, 0] for batch in engine.batches]
        assert ran == [0.0, 5.0, 1.0, 3.0, 2.0, 4.0]


def test_who_waited_for_long_enough_waits_behind_the_requests_of_all_fronts() -> None:
    engine = FakeEngine()
    with bench(2) as made:
        target = made.serve(engine, max_rows=1, delays=True)
        engine.hold()
        callers = [made.fronts[0].send(target, 0.0)]
        assert engine.running.wait(ANSWERED_WITHIN)
        callers.append(made.fronts[0].send(target, 1.0, delay_at=0.0))
        callers += [made.fronts[n % 2].send(target, float(n)) for n in (2, 3)]
        engine.release()
        for caller in callers:
            caller.wait()
        ran = [batch.inputs["INPUT0"][0, 0] for batch in engine.batches]
        assert ran == [0.0, 2.0, 3.0, 1.0]


def test_neighbours_of_one_front_run_where_they_lie_and_others_are_put_together() -> None:
    inside: list[bool] = []

    def compute(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        memories = [link.inputs for link in made.links.values()]
        inside.append(any(np.shares_memory(inputs["INPUT0"], one) for one in memories))
        return double(inputs)

    engine = FakeEngine(DOUBLING, compute)
    with bench(2) as made:
        target = made.serve(engine)
        for sent in ([0, 0, 0], [0, 1, 0]):
            engine.hold()
            first = made.fronts[0].send(target, 1.0)
            assert engine.running.wait(ANSWERED_WITHIN)
            callers = [made.fronts[index].send(target, 2.0) for index in sent]
            engine.release()
            for caller in (first, *callers):
                caller.wait()
    assert [batch.rows for batch in engine.batches] == [1, 3, 1, 3]
    assert inside == [True, True, True, False]


def test_what_a_dead_front_asked_does_not_wait_any_more() -> None:
    engine = FakeEngine()
    with bench(2) as made:
        target = made.serve(engine)
        (queue,) = made.queues
        engine.hold()
        first = made.fronts[1].send(target, 1.0)
        assert engine.running.wait(ANSWERED_WITHIN)
        lost = made.fronts[0].send(target, 2.0)
        waits = made.fronts[1].send(target, 3.0)
        assert queue.waiting_requests == 2
        made.inbox.detach(0)
        assert (queue.waiting_requests, queue.rows) == (1, 1)
        engine.release()
        assert first.wait().output == rows_of(2)
        assert waits.wait().output == rows_of(6)
        # The front begins anew.
        for one in made.fronts[0].link.take_back():
            one.job.fail(WorkerLost("gone"))
        made.inbox.attach(0)
        assert lost.answers == 1
        assert made.fronts[0].send(target, 4.0).wait().output == rows_of(8)
