"""The rules of dying where there are two workers, with doubles for all processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from inferd_engines.devices import Device
from inferd_server.errors import ModelNotReady
from inferd_server.models.overrides import Override
from inferd_server.processes import children, condition
from inferd_server.processes.children import WORKER_LOST
from inferd_server.processes.messages import (
    Attach,
    Caught,
    Condition,
    Detach,
    Disconnected,
    Ending,
    Listening,
    Load,
    Loaded,
    ModelOverrides,
    ModelRecord,
    ModelRecords,
    ProcessPlace,
    Unload,
    WorkerGone,
)
from inferd_server.processes.policy import FAILURES_ON_GPU
from inferd_server.processes.spawn import FRONT, WORKER

from tests.fakes.child import WITHIN, FakeChild
from tests.server.processes.supervised import Bench, Speaking, hears, reply

DEVICES = [Device(f"GPU-{name}", nbytes=1 << 30) for name in ("aa", "bb")]
NAMES = ("first", "second", "both")


def repository(folder: Path) -> Path:
    for name, gpus in zip(NAMES, ("[0]", "[1]", "all"), strict=True):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "model.yaml").write_text(f"gpus: {gpus}\n")
    return folder


class Two:
    """A supervisor with a front and two workers that have their models."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.bench = Bench(repository(folder), devices=DEVICES, **settings)
        self.places: dict[int, ProcessPlace] = {}
        self.workers: dict[int, FakeChild] = {}
        for _ in DEVICES:
            self.begins()
        self.front, _ = self.bench.next(FRONT)
        says(self.front, Listening("fake"))

    def begins(self) -> FakeChild:
        """Return the worker that starts next."""
        worker, place = self.bench.next(WORKER)
        self.workers[place.index], self.places[place.index] = worker, place
        return worker

    def loads(self, *indexes: int) -> None:
        for index in indexes:
            held = self.places[index].held or frozenset()
            says(self.workers[index], served(*held), Loaded(frozenset()))

    def ready(self, ready: bool = True) -> None:
        """Wait until the front is told that the server is ready, or is not."""
        while True:
            told = hears(self.front, Condition)
            assert isinstance(told, Condition)
            if told.ready is ready:
                return

    def known(self) -> dict[str, ModelRecord]:
        """Return what the front is told next of the models."""
        told = hears(self.front, ModelRecords)
        assert isinstance(told, ModelRecords)
        return {record.name: record for record in told.records}


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    made = Two(tmp_path)
    yield made
    made.bench.close()


def says(child: FakeChild, *messages: object) -> None:
    assert isinstance(child.channel, Speaking)
    for message in messages:
        child.channel.says.put(message)


def served(*names: str) -> ModelRecords:
    records = tuple(ModelRecord(name, 1, "READY", "", None) for name in sorted(names))
    return ModelRecords(records, True, frozenset(names))


def test_each_worker_has_its_gpu_its_models_and_a_name_of_its_own(two: Two) -> None:
    assert {index: place.device for index, place in two.places.items()} == {
        0: "GPU-aa",
        1: "GPU-bb",
    }
    assert two.places[0].held == {"first", "both"}
    assert two.places[1].held == {"second", "both"}
    assert two.workers[1].child.name == "worker-1"
    assert hears(two.workers[0], Attach) == hears(two.workers[1], Attach) == Attach(0)


def test_the_server_is_ready_once_both_have_loaded(two: Two) -> None:
    two.loads(0)
    while set(two.known()) != {"first", "both"}:
        pass
    two.loads(1)
    two.ready()


def test_ready_is_logged_once_the_slowest_front_knows_the_models(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = threading.Event()

    def note(message: str, **_: object) -> None:
        if message == "ready":
            said.set()

    monkeypatch.setattr(condition.log, "info", note)
    monkeypatch.setattr(children, "ANSWER_S", 0.01)
    two.front.channel.reply = None
    two.loads(0, 1)
    two.ready()
    # Once for each worker, and then until it answers.
    asked = [two.front.is_asked() for _ in range(5)]
    assert {type(question) for question, _ in asked} == {Caught}
    assert not said.is_set()
    two.front.channel.reply = reply
    for _, future in asked:
        future.set_result(None)
    assert said.wait(WITHIN)


def test_a_front_loses_the_link_to_the_worker_that_died_and_no_other(two: Two) -> None:
    two.loads(0, 1)
    two.ready()
    for worker in two.workers.values():
        hears(worker, Attach)
    two.workers[1].die()
    assert hears(two.front, WorkerGone) == WorkerGone(WORKER_LOST, 1)
    found = two.known()
    assert (found["second"].returning, found["second"].reason) == (True, WORKER_LOST)
    assert found["both"].state == found["first"].state == "READY"
    two.ready(False)
    new = two.begins()
    assert (two.places[1].device, two.places[1].wanted) == ("GPU-bb", {"second", "both"})
    says(two.front, Disconnected({}, 1))
    assert hears(new, Attach) == Attach(0)
    two.loads(1)
    two.ready()
    # Nobody told the other one anything of it.
    told = []
    while not two.workers[0].channel.told.empty():
        told.append(two.workers[0].hears())
    assert not [message for message in told if isinstance(message, Attach)]


def test_a_front_that_dies_is_forgotten_by_both_before_the_next_one_comes(two: Two) -> None:
    for worker in two.workers.values():
        hears(worker, Attach)
        worker.channel.reply = None
    two.front.die()
    answers = []
    for worker in two.workers.values():
        question, answer = worker.is_asked()
        assert question == Detach(0)
        answer.set_result(None)
        answers.append(answer)
    two.bench.next(FRONT)
    assert hears(two.workers[0], Attach) == hears(two.workers[1], Attach) == Attach(0)


def test_a_load_is_asked_of_the_workers_that_are_to_have_the_model(two: Two) -> None:
    two.loads(0, 1)
    two.ready()
    moved = Load("both", Override('{"gpus": [1]}'))
    says(two.front, Load("second"), moved, Unload("first"))
    assert [is_asked(two.workers[1]) for _ in range(2)] == [Load("second"), moved]
    # What goes elsewhere is unloaded where it was.
    assert [is_asked(two.workers[0]) for _ in range(2)] == [Unload("both"), Unload("first")]


def is_asked(worker: FakeChild) -> object:
    """Return the next load or unload that a worker is asked for."""
    while not isinstance(message := worker.is_asked()[0], Load | Unload):
        pass
    return message


def test_a_worker_is_told_what_its_own_models_were_loaded_with(two: Two) -> None:
    two.loads(0, 1)
    two.ready()
    override = Override('{"gpus": [0]}')
    says(two.front, Load("first", override), Unload("second"))
    assert is_asked(two.workers[0]) == Load("first", override)
    # The first change is over then.
    assert is_asked(two.workers[1]) == Unload("second")
    two.workers[1].die()
    two.begins()
    assert not two.places[1].awaits_overrides
    two.workers[0].die()
    assert hears(two.begins(), ModelOverrides) == ModelOverrides({"first": override})


def test_a_gpu_whose_worker_ends_again_and_again_is_given_up_and_the_server_goes_on(
    two: Two,
) -> None:
    two.loads(0)
    for _ in range(FAILURES_ON_GPU - 1):
        fall(two.workers[1])
        two.begins()
    fall(two.workers[1])
    found: dict[str, ModelRecord] = {}
    while "second" not in found or found["second"].returning or not found["second"].reason:
        found = two.known()
    assert "GPU GPU-bb is given up" in found["second"].reason
    assert "it fell off the bus" in found["second"].reason
    assert found["both"].state == "READY"
    assert not two.bench.failed.is_set()


def fall(worker: FakeChild) -> None:
    says(worker, Ending("it fell off the bus"))
    assert isinstance(worker.channel, Speaking)
    while not worker.channel.says.empty():
        pass
    worker.die()


def test_a_load_in_two_workers_is_refused_by_both_if_one_refuses(two: Two) -> None:
    two.loads(0, 1)
    two.ready()
    two.workers[0].channel.reply = refuse
    says(two.front, Load("both"), Unload("second"))
    assert isinstance(two.front.channel, Speaking)
    assert str(two.front.channel.refusals.get(timeout=WITHIN)) == "no memory"
    # What the first one cannot open, no other is asked for.
    assert is_asked(two.workers[1]) == Unload("second")


def refuse(message: object) -> object:
    if isinstance(message, Load):
        raise ModelNotReady("no memory")
    return reply(message)
