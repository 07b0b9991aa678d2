"""Engines that are lost, and repositories that close."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from inferd_engines.engine import EngineError
from inferd_server.errors import EngineFailure, ModelNotReady, ShuttingDown, WorkerLost

from tests.server.callers import rows_of
from tests.server.models.bench import WITHIN, Bench, apart

GONE = EngineError("the device is gone", fatal=True)


def loaded(bench: Bench, *names: str, yaml: str = "max_batch_size: 1") -> None:
    for name in names:
        bench.add(name, 1, yaml=yaml)
        bench.repository.load(name)


def test_a_lost_engine_answers_what_waits_and_tells_later_requests_why(bench: Bench) -> None:
    loaded(bench, "m")
    engine = bench.engines.last
    engine.hold()
    running = bench.submit(1.0)
    assert engine.running.wait(WITHIN)
    waiting = [bench.submit(2.0), bench.submit(3.0)]
    engine.fail(GONE)
    engine.release()
    assert type(running.wait().error) is EngineFailure
    for caller in waiting:
        assert type(caller.wait().error) is WorkerLost
        assert str(caller.error) == "the engine of model 'm' was lost"
    bench.await_changes(3)
    why = "its engine was lost: the device is gone"
    assert (bench.states, bench.reasons) == (["m/1 UNAVAILABLE"], [why])
    with pytest.raises(ModelNotReady) as caught:
        bench.repository.resolve("m", "")
    assert str(caught.value) == f"model 'm' is UNAVAILABLE: {why}"
    assert bench.served() == set()


def test_a_lost_engine_ends_the_other_instances_after_their_run(bench: Bench) -> None:
    loaded(bench, "m", yaml="{instances: 2, max_batch_size: 1}")
    engines = bench.engines.opened
    for engine in engines:
        engine.running.clear()
        engine.hold()
    handle = bench.repository.resolve("m", "")
    callers = [bench.submit(1.0), bench.submit(1.0)]
    assert all(engine.running.wait(WITHIN) for engine in engines)
    engines[0].fail(GONE)
    engines[0].release()
    bench.await_changes(3)
    assert not handle.ended
    engines[1].release()
    assert sorted(len(caller.wait().errors) for caller in callers) == [0, 1]
    assert all(instance.join(WITHIN) for instance in handle.instances)
    assert handle.ended
    assert handle.arena.rows == 0
    assert bench.served() == set()


def test_a_lost_model_can_be_loaded_again(bench: Bench) -> None:
    loaded(bench, "m")
    bench.engines.last.fail(GONE)
    assert type(bench.submit(1.0).wait().error) is EngineFailure
    bench.await_changes(3)
    bench.repository.load("m")
    assert bench.changes[2:] == [["m/1 UNAVAILABLE"], ["m/1 LOADING"], ["m/1 READY"]]
    assert bench.submit(1.0).wait().output == rows_of(2.0)
    assert bench.served() == {"m/1 fake/numpy"}


def test_an_engine_lost_while_its_model_unloads_is_counted_out_once(bench: Bench) -> None:
    loaded(bench, "m")
    engine = bench.engines.last
    engine.hold()
    bench.submit(1.0)
    assert engine.running.wait(WITHIN)
    engine.fail(GONE)
    unload = apart(lambda: bench.repository.unload("m"))
    bench.await_changes(3)
    engine.release()
    unload.result(WITHIN)
    assert bench.reasons == ["unloaded"]
    assert bench.served() == set()
    bench.repository.load("m")
    assert bench.served() == {"m/1 fake/numpy"}


def test_a_failed_run_that_is_not_fatal_loses_nothing(bench: Bench) -> None:
    loaded(bench, "m")
    bench.engines.last.fail(EngineError("cannot"))
    assert type(bench.submit(1.0).wait().error) is EngineFailure
    assert bench.submit(1.0).wait().output == rows_of(2.0)
    assert bench.states == ["m/1 READY"]


def test_closing_finishes_what_waits_and_closes_every_engine(bench: Bench) -> None:
    loaded(bench, "m", "n")
    engine = bench.engines.last
    engine.hold()
    running = bench.submit(1.0, name="n")
    assert engine.running.wait(WITHIN)
    waiting = bench.submit(2.0, name="n")
    close = apart(lambda: bench.repository.close(WITHIN))
    bench.await_changes(5)
    engine.release()
    assert close.result(WITHIN) is True
    assert running.wait().output == rows_of(2.0)
    assert waiting.wait().output == rows_of(4.0)
    assert all(opened.closed for opened in bench.engines.opened)
    assert bench.states == ["m/1 UNAVAILABLE", "n/1 UNAVAILABLE"]


def test_closing_an_empty_repository_is_done_at_once(bench: Bench) -> None:
    assert bench.repository.close(0.0) is True


def test_closing_twice_is_safe(bench: Bench) -> None:
    loaded(bench, "m")
    assert bench.repository.close(WITHIN)
    assert bench.repository.close(WITHIN)


def test_closing_gives_up_on_an_engine_at_work_and_answers_what_waits(bench: Bench) -> None:
    loaded(bench, "m")
    engine = bench.engines.last
    engine.hold()
    running = bench.submit(1.0)
    assert engine.running.wait(WITHIN)
    waiting = bench.submit(2.0)
    assert bench.repository.close(0.0) is False
    assert type(waiting.wait().error) is ShuttingDown
    assert running.answers == 0
    engine.release()
    assert running.wait().output == rows_of(2.0)


def test_closing_many_idle_models_takes_no_longer_than_it_may(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a second each; one that has requests is closed all the same."""
    names = [f"m{number:02}" for number in range(20)]
    loaded(bench, *names)
    busy = bench.engines.last
    busy.hold()
    running = bench.submit(1.0, name=names[-1])
    assert busy.running.wait(WITHIN)
    waiting = bench.submit(2.0, name=names[-1])
    closed = set()

    def slowly(name: str, close: Callable[[], None]) -> None:
        bench.clock.advance(0.5)
        closed.add(name)
        close()

    for name in names:
        queue = bench.repository.resolve(name, "").queue
        monkeypatch.setattr(queue, "close", partial(slowly, name, queue.close))
    begun = bench.clock()
    assert bench.repository.close(2.0) is False
    assert closed == {*names[:5], names[-1]}
    assert bench.clock() - begun <= 2.0 + 3 * 0.5
    assert type(waiting.wait().error) is ShuttingDown
    busy.release()
    assert running.wait().output == rows_of(2.0)
    monkeypatch.undo()


def test_closing_gives_up_on_a_load_under_way_which_then_ends(bench: Bench) -> None:
    bench.add("m", 1)
    bench.engines.hold()
    load = apart(lambda: bench.repository.load("m"))
    assert bench.engines.opening.wait(WITHIN)
    assert bench.repository.close(0.0) is False
    bench.engines.release()
    with pytest.raises(ShuttingDown):
        load.result(WITHIN)
    assert bench.states == ["m/1 UNAVAILABLE"]
    assert bench.engines.last.closed
    assert bench.served() == set()


def test_nothing_is_loaded_once_the_repository_closes(bench: Bench) -> None:
    loaded(bench, "m")
    assert bench.repository.close(WITHIN)
    with pytest.raises(ShuttingDown, match="the server is shutting down"):
        bench.repository.load("m")
    assert bench.repository.load_all() == frozenset()
    assert len(bench.engines.opened) == 1
