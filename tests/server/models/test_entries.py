"""What is known of model versions, and which one serves a request."""

from __future__ import annotations

import pytest
from inferd_server.batching.forecast import Forecast
from inferd_server.batching.job import Job
from inferd_server.batching.queue import BatchQueue
from inferd_server.batching.slots import Arena
from inferd_server.errors import InvalidInput, ModelNotFound, ModelNotReady, VersionNotFound
from inferd_server.models.config import ModelConfig
from inferd_server.models.entries import UNLOADED, Entries, ModelEntry, State, choose
from inferd_server.models.version import Handle, ModelBounds
from inferd_server.monitoring.statistics import Statistics

from tests.fakes.clock import FakeClock
from tests.fakes.engine import DOUBLING


def handle_of(name: str = "m", version: int = 1) -> Handle:
    bounds = ModelBounds(4, 0.0, 8, 1000)
    queue: BatchQueue[Job] = BatchQueue(bounds.limits, FakeClock())
    arena = Arena(bounds.max_queue_rows, bounds.max_queue_bytes)
    config = ModelConfig()
    statistics, forecast = Statistics(), Forecast(bounds.limits)
    return Handle(
        name,
        version,
        config,
        DOUBLING,
        bounds,
        "fake",
        "",
        "",
        queue,
        arena,
        statistics,
        forecast,
    )


def ready(version: int) -> ModelEntry:
    return ModelEntry("m", version, State.READY, handle=handle_of("m", version))


def of(*entries: ModelEntry) -> Entries:
    made = Entries(lambda: None)
    for entry in entries:
        made.put(entry)
    return made


def test_nothing_is_known_at_first() -> None:
    entries = of()
    assert entries.all() == []
    assert entries.versions("m") == {}
    with pytest.raises(ModelNotFound, match=r"^model 'm' is not known; none is$"):
        entries.choose("m", "")


def test_an_unknown_model_is_told_with_those_that_are_known() -> None:
    entries = of(ModelEntry("b", 1, State.READY), ModelEntry("a", 1, State.UNAVAILABLE))
    with pytest.raises(ModelNotFound, match=r"^model 'c' is not known; known are a, b$"):
        entries.choose("c", "1")


def test_all_is_sorted_by_name_and_number() -> None:
    names = [("b", 1), ("a", 10), ("a", 9)]
    entries = of(*(ModelEntry(name, version, State.READY) for name, version in names))
    assert [(e.name, e.version) for e in entries.all()] == [("a", 9), ("a", 10), ("b", 1)]


def test_a_version_can_be_named_whatever_its_state() -> None:
    loading = ModelEntry("m", 2, State.LOADING)
    entries = of(ready(1), loading)
    assert entries.choose("m", "2") is loading


@pytest.mark.parametrize(
    "version", ["0", "01", " 1", "1 ", "+1", "-1", "1.0", "\u0661", "x", "xyz"]
)
def test_what_is_no_version_at_all_is_invalid(version: str) -> None:
    with pytest.raises(InvalidInput, match=r"is no version; 1, 2, 3, ... was expected, or none$"):
        of(ready(10), ready(1)).choose("m", version)


@pytest.mark.parametrize("version", ["3", "100", "99999999999999999999"])
def test_a_version_that_is_not_there_is_told_with_those_that_are(version: str) -> None:
    with pytest.raises(VersionNotFound) as caught:
        of(ready(10), ready(1)).choose("m", version)
    assert str(caught.value) == f"model 'm' has no version {version!r}; it has 1, 10"


def test_no_version_named_takes_the_highest_that_is_ready() -> None:
    entries = of(ready(1), ready(9), ModelEntry("m", 10, State.LOADING))
    assert entries.choose("m", "").version == 9


@pytest.mark.parametrize("state", [State.LOADING, State.UNAVAILABLE, State.UNLOADING])
def test_no_version_named_takes_the_highest_where_none_is_ready(state: State) -> None:
    assert choose("m", {v: ModelEntry("m", v, state) for v in (2, 10, 9)}, "").version == 10


def test_a_model_of_which_no_version_could_be_named_has_none() -> None:
    entries = of(ModelEntry("m", 0, State.UNAVAILABLE, "no version"))
    assert entries.choose("m", "").reason == "no version"
    with pytest.raises(VersionNotFound, match=r"^model 'm' has no version '1'; it has none$"):
        entries.choose("m", "1")


def test_a_version_that_can_be_named_takes_the_place_of_none() -> None:
    entries = of(ModelEntry("m", 0, State.UNAVAILABLE, "no version"), ready(1))
    assert list(entries.versions("m")) == [1]


def test_put_returns_what_it_replaces_and_tells() -> None:
    seen: list[list[State]] = []
    entries = Entries(lambda: seen.append([entry.state for entry in entries.all()]))
    first = ModelEntry("m", 1, State.LOADING)
    assert entries.put(first) is None
    assert entries.put(ready(1)) is first
    assert seen == [[State.LOADING], [State.READY]]


def test_versions_once_read_never_change() -> None:
    entries = of(ready(1))
    before = entries.versions("m")
    entries.put(ready(2))
    assert list(before) == [1]
    assert list(entries.versions("m")) == [1, 2]


def test_a_ready_handle_is_replaced_once() -> None:
    calls: list[None] = []
    entries = Entries(lambda: calls.append(None))
    handle = handle_of()
    entries.put(ModelEntry("m", 1, State.READY, handle=handle))
    gone = ModelEntry("m", 1, State.UNAVAILABLE, "lost")
    assert entries.replace(handle, gone)
    assert entries.choose("m", "1") is gone
    assert not entries.replace(handle, ModelEntry("m", 1, State.UNAVAILABLE, "again"))
    assert entries.choose("m", "1") is gone
    assert len(calls) == 2


def test_a_handle_that_unloads_or_has_a_successor_is_not_replaced() -> None:
    old, new = handle_of(), handle_of()
    entries = of(ModelEntry("m", 1, State.UNLOADING, handle=old))
    assert not entries.replace(old, ModelEntry("m", 1, State.UNAVAILABLE))
    entries.put(ModelEntry("m", 1, State.READY, handle=new))
    assert not entries.replace(old, ModelEntry("m", 1, State.UNAVAILABLE))
    assert entries.choose("m", "").handle is new


def test_a_handle_that_was_never_put_is_not_replaced() -> None:
    entries = of()
    assert not entries.replace(handle_of(), ModelEntry("m", 1, State.UNAVAILABLE))
    assert entries.all() == []


@pytest.mark.parametrize(
    ("entry", "version", "kind", "said"),
    [
        (
            ModelEntry("m", 1, State.UNAVAILABLE, UNLOADED), "", ModelNotFound,
            "model 'm' was unloaded",
        ),
        (
            ModelEntry("m", 1, State.UNAVAILABLE, UNLOADED), "1", VersionNotFound,
            "version 1 of model 'm' was unloaded",
        ),
        (ModelEntry("m", 1, State.UNLOADING), "", ModelNotFound, "model 'm' is being unloaded"),
        (ModelEntry("m", 1, State.LOADING), "", ModelNotReady, "model 'm' is LOADING"),
        (
            ModelEntry("m", 1, State.UNAVAILABLE, "the worker died"), "1", ModelNotReady,
            "model 'm' is UNAVAILABLE: the worker died",
        ),
    ],
)  # fmt: skip
def test_only_what_may_come_back_is_worth_another_try(
    entry: ModelEntry, version: str, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind) as caught:
        of(entry).resolve("m", version)
    assert type(caught.value) is kind
    assert str(caught.value) == said


def labelled(**labels: int) -> Entries:
    entries = of(ready(1), ready(2), ready(3))
    entries.label("m", {name.strip("_"): version for name, version in labels.items()})
    return entries


@pytest.mark.parametrize(
    ("name", "version", "found"),
    [
        ("m", "", 1),
        ("m", "@production", 1),
        ("m@production", "", 1),
        ("m", "@candidate", 3),
        ("m@candidate", "", 3),
        ("m", "2", 2),
    ],
)
def test_a_label_may_be_named_beside_the_model_or_in_place_of_its_version(
    name: str, version: str, found: int
) -> None:
    entries = labelled(production=1, candidate=3, _=1)
    assert entries.resolve(name, version).version == found


def test_without_a_label_for_those_who_name_none_the_highest_version_serves() -> None:
    assert labelled(candidate=1).resolve("m", "").version == 3


def test_a_label_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(VersionNotFound, match=r"^model 'm' has no label 'x'; it has a, b$"):
        labelled(a=1, b=2, _=1).choose("m@x", "")
    with pytest.raises(VersionNotFound, match=r"^model 'm' has no label ''; it has none$"):
        of(ready(1)).choose("m", "@")
    with pytest.raises(ModelNotFound, match=r"^model 'n@x' is not known"):
        labelled(a=1).choose("n@x", "2")


def test_a_label_at_a_version_that_is_not_loaded_yet_asks_for_patience() -> None:
    with pytest.raises(ModelNotReady, match="label 'a' is at version 9, not loaded yet"):
        labelled(a=9).choose("m@a", "")


def test_a_model_that_is_called_so_is_meant_and_no_label() -> None:
    entries = labelled(b=1)
    entries.put(ModelEntry("m@b", 7, State.READY, handle=handle_of("m@b", 7)))
    assert entries.resolve("m@b", "").version == 7


def test_requests_without_a_version_go_to_no_other_one_where_the_one_meant_cannot_serve() -> None:
    entries = labelled(production=1, _=1)
    entries.put(ModelEntry("m", 1, State.UNAVAILABLE, "it is broken"))
    with pytest.raises(ModelNotReady, match="it is broken"):
        entries.resolve("m", "")


def test_a_change_of_labels_is_told_once() -> None:
    calls: list[None] = []
    entries = Entries(lambda: calls.append(None))
    entries.label("m", {"a": 1})
    entries.label("m", {"a": 1})
    assert len(calls) == 1
