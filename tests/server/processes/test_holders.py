"""What processes have in common that each have the models, and how one that is new joins them."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from inferd_engines.engine import Signature, Tensor
from inferd_server.errors import ModelNotFound, ModelNotReady
from inferd_server.models.config import ModelConfig
from inferd_server.models.entries import UNLOADED
from inferd_server.models.overrides import Override
from inferd_server.models.version import Description, ModelBounds
from inferd_server.processes.channel import PeerLost
from inferd_server.processes.holders import Holders
from inferd_server.processes.messages import Load, ModelRecord, ModelRecords, Opened, Taking, Unload
from inferd_server.processes.together import NOT_EVERYWHERE, together

from tests.fakes.child import WITHIN, FakeChild

BOUNDS = ModelBounds(4, 0.0, 8, 1000)


def record(name: str, state: str = "READY", reason: str = "", version: int = 1) -> ModelRecord:
    about = None
    if state == "READY":
        tensor = Tensor("INPUT0", np.dtype(np.float32), (None, 4))
        signature = Signature((tensor,), (tensor,))
        about = Description(name, version, ModelConfig(), signature, BOUNDS, "fake", "", "")
    return ModelRecord(name, version, state, reason, about)


def models(*records: ModelRecord, wanted: tuple[str, ...] = ("m",)) -> ModelRecords:
    return ModelRecords(records, settled=True, wanted=frozenset(wanted))


class Replica(FakeChild):
    """A process that does what it is asked, and tells of it."""

    def __init__(self, holders: Holders, index: int, counts: bool = True) -> None:
        super().__init__("replica", index)
        self.done: list[object] = []
        self.refuses: Exception | None = None
        self.has = {"m"}
        self.asked = threading.Event()
        # Closed by a test that wants it to take its time.
        self.gate = threading.Event()
        self.gate.set()
        self._holders = holders
        self.channel.ask = self.ask  # type: ignore[method-assign]
        holders.begin(self.child, counts)

    def ask(self, message: object) -> Future[Any]:
        future: Future[Any] = Future()

        def act() -> None:
            try:
                future.set_result(self._do(message))
            except Exception as error:
                future.set_exception(error)

        threading.Thread(target=act, daemon=True).start()
        return future

    def _do(self, message: object) -> None:
        self.asked.set()
        assert self.gate.wait(WITHIN)
        if self.refuses is not None:
            raise self.refuses
        if isinstance(message, Load):
            self._holders.agree(self.child, Opened(message.name))
            self._holders.agree(self.child, Taking(message.name))
            self.has.add(message.name)
        elif isinstance(message, Unload):
            if message.name not in self.has:
                raise ModelNotFound("it is not known")
            self.has.discard(message.name)
        self.done.append(message)
        self.tell()

    def tell(self) -> None:
        records = (record(name) for name in sorted(self.has))
        self._holders.told(self.child, models(*records, wanted=tuple(self.has)))

    def loaded(self) -> bool:
        """Tell that everything was tried, and join the others."""
        self.tell()
        self._holders.tried(self.child, frozenset())
        self._holders.join(self.child)
        return self.child in self._holders.counting()


@pytest.fixture
def holders() -> Holders:
    return Holders(threading.RLock())


def pair(holders: Holders) -> tuple[Replica, Replica]:
    made = Replica(holders, 0), Replica(holders, 1)
    assert all(each.loaded() for each in made)
    return made


def states(holders: Holders) -> dict[str, str]:
    return {each.name: each.state for each in holders.models.records}


def test_a_version_serves_if_it_does_in_every_process() -> None:
    ready = record("m")
    found = together([models(ready), models(ready)])
    assert found.models.records == (ready,)
    assert found.partial == {}


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ((), NOT_EVERYWHERE),
        ((record("m", "LOADING"),), NOT_EVERYWHERE),
        ((record("m", "UNAVAILABLE", "no memory"),), "no memory"),
    ],
)
def test_a_version_that_one_process_lacks_serves_nowhere_and_the_reason_is_told(
    other: tuple[ModelRecord, ...], why: str
) -> None:
    found = together([models(record("m")), models(*other)])
    assert found.partial == {("m", 1): why}
    assert [each.state for each in found.models.records] != ["READY"]


def test_what_no_process_serves_is_no_difference_between_them() -> None:
    gone = record("m", "UNAVAILABLE", UNLOADED)
    found = together([models(gone), models(gone)])
    assert (found.models.records, found.partial) == ((gone,), {})


def test_a_server_has_loaded_once_every_process_that_counts_has(holders: Holders) -> None:
    first, second = Replica(holders, 0), Replica(holders, 1)
    assert not holders.loaded
    first.loaded()
    assert not holders.loaded
    second.loaded()
    assert holders.loaded
    # It takes no calls yet.
    third = Replica(holders, 2, counts=False)
    assert holders.loaded
    third.loaded()
    assert third.child in holders.counting()


def test_what_one_process_is_told_all_do(holders: Holders) -> None:
    first, second = pair(holders)
    override = Override("{}")
    holders.load(Load("n", override))
    holders.unload(Unload("m"))
    assert first.done == second.done == [Load("n", override), Unload("m")]
    assert states(holders) == {"n": "READY"}
    assert holders.overrides == {"n": override}
    holders.load(Load("n"))
    assert holders.overrides == {}


def test_a_load_that_one_process_refuses_is_one_of_none(holders: Holders) -> None:
    first, second = pair(holders)
    second.refuses = ModelNotReady("no memory")
    with pytest.raises(ModelNotReady, match="no memory"):
        holders.load(Load("n", Override("{}")))
    assert first.done == []
    assert states(holders) == {"m": "READY"}
    assert holders.overrides == {}


def test_an_unload_fails_only_where_no_process_knows_the_model(holders: Holders) -> None:
    first, second = pair(holders)
    with pytest.raises(ModelNotFound):
        holders.unload(Unload("n"))
    first.has.add("n")
    holders.unload(Unload("n"))
    assert first.done == [Unload("n")]
    second.refuses = PeerLost("gone")
    holders.unload(Unload("m"))
    assert first.done[1:] == [Unload("m")]


def test_nobody_is_asked_to_load_before_somebody_has_its_models(holders: Holders) -> None:
    with pytest.raises(ModelNotReady, match="worker"):
        holders.load(Load("n"))
    Replica(holders, 0)
    with pytest.raises(ModelNotReady, match="try again"):
        holders.load(Load("n"))


def test_a_process_that_starts_meanwhile_repeats_the_changes_that_it_missed(
    holders: Holders,
) -> None:
    pair(holders)
    new = Replica(holders, 2, counts=False)
    override = Override("{}")
    holders.load(Load("n", override))
    holders.unload(Unload("m"))
    assert new.done == []
    assert new.loaded()
    assert {type(each) for each in new.done} == {Load, Unload}
    assert new.has == {"n"}
    assert Load("n", override) in new.done
    assert holders.partial == {}


def test_a_process_that_starts_during_a_load_waits_for_its_end(holders: Holders) -> None:
    _, second = pair(holders)
    second.gate.clear()
    with ThreadPoolExecutor() as threads:
        load = threads.submit(holders.load, Load("n"))
        assert second.asked.wait(WITHIN)
        new = Replica(holders, 2, counts=False)
        joining = threads.submit(new.loaded)
        assert not load.done()
        second.gate.set()
        load.result(WITHIN)
        assert joining.result(WITHIN)
    assert new.has == {"m", "n"}
    assert holders.partial == {}


def test_a_process_that_found_other_models_lets_all_look_again(holders: Holders) -> None:
    first, second = pair(holders)
    new = Replica(holders, 2, counts=False)
    # Somebody put a model into the folder, and told nobody.
    new.has.add("n")
    assert new.loaded()
    assert first.done == second.done == new.done == [Load("n")]
    assert states(holders) == {"m": "READY", "n": "READY"}


def test_a_process_that_has_not_what_the_others_have_counts_once_it_has(
    holders: Holders,
) -> None:
    pair(holders)
    new = Replica(holders, 2, counts=False)
    new.has.clear()
    new.refuses = ModelNotReady("no memory")
    new.loaded()
    assert new.child in holders.joined()
    assert new.child not in holders.counting()
    # Those that take calls have it, and nobody is told otherwise.
    assert (holders.partial, states(holders)) == ({}, {"m": "READY"})
    new.has = {"m"}
    new.tell()
    assert new.child in holders.counting()


def test_whoever_is_left_counts_whatever_it_has(holders: Holders) -> None:
    first, second = pair(holders)
    new = Replica(holders, 2, counts=False)
    new.has.clear()
    new.refuses = ModelNotReady("no memory")
    new.loaded()
    holders.lost(first.child)
    holders.lost(second.child)
    holders.count_all()
    assert holders.counting() == [new.child]
    assert states(holders) == {}


def test_what_served_is_remembered_once_every_process_is_gone(holders: Holders) -> None:
    first, second = pair(holders)
    holders.load(Load("n", Override("{}")))
    holders.lost(first.child)
    assert states(holders) == {"m": "READY", "n": "READY"}
    holders.lost(second.child)
    assert states(holders) == {"m": "UNAVAILABLE", "n": "UNAVAILABLE"}
    assert holders.models.wanted == {"m", "n"}
    assert set(holders.overrides) == {"n"}
    assert not holders.loaded
    holders.join(first.child)
    assert holders.counting() == []
