"""A load that other processes take part in: opened by all, taken by all, ready in all; or none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from inferd_server.errors import ModelNotReady, Unavailable
from inferd_server.repository.repository import State

from tests.server.callers import rows_of
from tests.server.repository.bench import WITHIN, Bench


class Others:
    """An agreement with processes that do what a test says."""

    def __init__(
        self,
        opened: Callable[[], None] = lambda: None,
        taking: Callable[[], None] = lambda: None,
    ) -> None:
        self.opened = opened
        self.taking = taking


def refuse() -> None:
    raise ModelNotReady("another process could not load it")


def test_a_new_version_takes_requests_before_it_is_told_to_be_ready(bench: Bench) -> None:
    bench.add("m", 1)
    seen: list[object] = []

    def look() -> None:
        seen.append(bench.states)
        seen.append(bench.submit(1.0).wait().output)

    bench.repository.load("m", None, Others(taking=look))
    assert seen == [["m/1 LOADING"], rows_of(2.0)]
    assert bench.states == ["m/1 READY"]
    assert not bench.engines.opened[0].closed


def test_nothing_is_taken_before_all_have_opened_it(bench: Bench) -> None:
    bench.add("m", 1)
    refusals: list[ModelNotReady] = []

    def look() -> None:
        with pytest.raises(ModelNotReady) as caught:
            bench.submit(1.0)
        refusals.append(caught.value)

    bench.repository.load("m", None, Others(opened=look))
    assert len(refusals) == 1


def test_what_served_goes_on_where_another_process_could_not_load_the_next(bench: Bench) -> None:
    bench.add("m", 1)
    bench.repository.load("m")
    before = bench.repository.resolve("m", "")
    bench.add("m", 1)
    with pytest.raises(ModelNotReady, match="another process"):
        bench.repository.load("m", None, Others(opened=refuse))
    assert bench.repository.resolve("m", "") is before
    assert bench.states == ["m/1 READY"]
    assert bench.reasons == ["not loaded, because another process could not load it"]
    assert [engine.closed for engine in bench.engines.opened] == [False, True]
    # What was refused counts as changed the next time.
    bench.repository.load("m", None, Others())
    assert bench.repository.resolve("m", "") is not before


def test_a_new_model_that_another_process_could_not_load_serves_nowhere(bench: Bench) -> None:
    bench.add("m", 1, 2, yaml="versions: all")
    with pytest.raises(ModelNotReady):
        bench.repository.load("m", None, Others(opened=refuse))
    assert {entry.state for entry in bench.repository.entries()} == {State.UNAVAILABLE}
    assert "m" not in bench.repository.wanted
    assert all(engine.closed for engine in bench.engines.opened)
    assert bench.served() == set()


def test_a_load_that_changes_nothing_is_agreed_upon_too(bench: Bench) -> None:
    bench.add("m", 1)
    bench.repository.load("m")
    asked: list[str] = []
    others = Others(lambda: asked.append("opened"), lambda: asked.append("taking"))
    bench.repository.load("m", None, others)
    assert asked == ["opened", "taking"]
    assert len(bench.engines.opened) == 1


def test_a_model_that_is_unloaded_after_an_agreement_ends(bench: Bench) -> None:
    bench.add("m", 1)
    bench.repository.load("m", None, Others())
    bench.repository.unload("m")
    assert bench.engines.opened[0].closed
    assert bench.repository.close(WITHIN)


def test_the_error_of_another_process_is_the_error_of_the_load(bench: Bench) -> None:
    bench.add("m", 1)

    def lose() -> None:
        raise Unavailable("gone")

    with pytest.raises(Unavailable, match="gone"):
        bench.repository.load("m", None, Others(opened=lose))
