"""What workers have that each hold some of the models, as one server tells of it."""

from __future__ import annotations

from collections.abc import Collection

from inferd_server.models.config import ModelConfig
from inferd_server.models.entries import UNLOADED
from inferd_server.models.version import Description, ModelBounds
from inferd_server.processes.children import WORKER_LOST
from inferd_server.processes.messages import ModelRecord, ModelRecords
from inferd_server.processes.together import Workers, lost, united

from tests.fakes.engine import DOUBLING

BOUNDS = ModelBounds(4, 0.0, 8, 1000)


def record(
    name: str, state: str = "READY", reason: str = "", number: int = 1, instances: int = 1
) -> ModelRecord:
    about = None
    if state == "READY":
        config = ModelConfig(instances=instances)
        about = Description(name, 1, config, DOUBLING, BOUNDS, "fake", "", "", number=number)
    return ModelRecord(name, 1, state, reason, about)


def models(*records: ModelRecord, settled: bool = True) -> ModelRecords:
    return ModelRecords(records, settled, frozenset(each.name for each in records))


def told(
    by: dict[int, ModelRecords],
    gone: dict[int, ModelRecords] | None = None,
    expected: Collection[int] = (0, 1),
    refused: dict[str, str] | None = None,
) -> ModelRecords:
    found = united(Workers(expected, by, gone or {}, lambda _worker, _name: True, refused or {}))
    assert found.partial == {}
    return found.models


def states(models: ModelRecords) -> dict[str, tuple[str, str]]:
    return {each.name: (each.state, each.reason) for each in models.records}


def where(models: ModelRecords) -> dict[str, dict[int, int]]:
    return {each.name: dict(each.workers) for each in models.records}


def test_a_server_has_what_its_workers_have_and_knows_what_each_calls_it() -> None:
    found = told({0: models(record("a"), record("b", number=2)), 1: models(record("b", number=7))})
    assert where(found) == {"a": {0: 1}, "b": {0: 2, 1: 7}}
    assert (found.settled, found.wanted) == (True, {"a", "b"})


def test_a_model_serves_while_one_of_its_workers_does() -> None:
    for other in ("LOADING", "UNAVAILABLE"):
        found = told({0: models(record("a", other, "no memory")), 1: models(record("a", number=4))})
        assert (states(found), where(found)) == ({"a": ("READY", "")}, {"a": {1: 4}})


def test_workers_whose_model_takes_other_requests_do_not_serve_it_side_by_side() -> None:
    found = told({0: models(record("a", number=3)), 1: models(record("a", instances=2))})
    assert where(found) == {"a": {0: 3}}


def test_a_model_whose_worker_is_gone_is_awaited_and_those_of_others_stay() -> None:
    gone = {1: lost(models(record("b"), record("c", "UNAVAILABLE", UNLOADED)))}
    found = told({0: models(record("a"))}, gone)
    assert states(found) == {
        "a": ("READY", ""),
        "b": ("UNAVAILABLE", WORKER_LOST),
        "c": ("UNAVAILABLE", UNLOADED),
    }
    assert [each.returning for each in found.records] == [False, True, False]
    assert not found.settled
    assert found.wanted == {"a", "b", "c"}


def test_what_the_next_worker_says_counts_and_what_it_says_nothing_of_is_awaited() -> None:
    gone = {1: lost(models(record("b"), record("c")))}
    found = told({0: models(), 1: models(record("b", "LOADING"), settled=False)}, gone)
    assert states(found) == {"b": ("LOADING", ""), "c": ("UNAVAILABLE", WORKER_LOST)}
    assert not found.settled


def test_a_model_is_awaited_over_a_second_death_unless_it_could_not_be_loaded() -> None:
    first = lost(models(record("a"), record("b"), record("c")))
    second = lost(
        models(record("a", "LOADING"), record("b", "UNAVAILABLE", "no memory"), settled=False),
        first,
    )
    assert {each.name: each.returning for each in second.records} == {
        "a": True,
        "b": False,
        "c": True,
    }
    assert lost(None, second) == second


def test_a_model_that_no_worker_may_have_is_told_with_the_reason() -> None:
    found = told({0: models(), 1: models()}, refused={"a": "GPU 7 is not there"})
    assert states(found) == {"a": ("UNAVAILABLE", "GPU 7 is not there")}
    assert found.wanted == {"a"}


def test_a_worker_is_not_believed_about_a_model_that_is_another_ones() -> None:
    by = {0: models(record("a")), 1: models(record("a", "UNAVAILABLE", UNLOADED))}
    workers = Workers((0, 1), by, {}, lambda worker, _: worker == 1)
    assert states(united(workers).models) == {"a": ("UNAVAILABLE", UNLOADED)}
