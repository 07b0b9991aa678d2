"""Who is held to be silent, sick or hung, on a clock that a test moves."""

from __future__ import annotations

import pytest
from inferd_server.models.health_check import TrialOutcome, TrialVerdict
from inferd_server.processes.messages import Ping, TryModels
from inferd_server.processes.watchdog import MISSED, TICK_S, Watchdog
from inferd_server.settings.model import SurvivalSettings

from tests.fakes.child import FakeChild
from tests.fakes.clock import FakeClock


class Watched:
    """A worker and two fronts."""

    def __init__(self, **settings: float) -> None:
        self.clock = FakeClock(1.0)
        self.worker = FakeChild("worker", 0)
        self.fronts = [FakeChild("front", 0), FakeChild("front", 1)]
        survival = SurvivalSettings(**settings)  # type: ignore[arg-type]
        self.vigil = Watchdog(survival, self.clock, lambda: [f.child for f in self.fronts])

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.clock.advance(TICK_S)
            self.vigil.look([self.worker.child, *(front.child for front in self.fronts)])

    def answer(self) -> None:
        self.vigil.heard(self.worker.child)

    def told(self, child: FakeChild) -> list[object]:
        found = []
        while not child.channel.told.empty():
            found.append(child.hears())
        return found

    @property
    def silent(self) -> bool:
        return self.vigil.silent(self.worker.child)

    def judged(self, outcome: TrialOutcome) -> None:
        self.vigil.judged(self.fronts[0].child, TrialVerdict("m", 1, outcome, outcome.value))

    @property
    def hung(self) -> list[str]:
        return [child.name for child, _ in self.vigil.hung(lambda _: [self.worker.child])]


@pytest.fixture
def watched() -> Watched:
    made = Watched()
    made.look()
    made.answer()
    return made


def test_a_worker_that_answers_is_asked_at_every_look_and_never_silent(watched: Watched) -> None:
    watched.told(watched.worker)
    for _ in range(10):
        watched.look()
        assert not watched.silent
        watched.answer()
    assert watched.told(watched.worker) == [Ping()] * 10


def test_a_worker_that_stops_answering_is_silent_within_about_a_second(watched: Watched) -> None:
    looks = 0
    while not watched.silent:
        watched.look()
        looks += 1
    assert looks * TICK_S <= 1.0
    assert looks > MISSED
    # It is asked once, so that nothing piles up before a process that reads nothing.
    watched.look(20)
    assert watched.told(watched.worker) == [Ping()] * 2
    watched.answer()
    assert not watched.silent


def test_a_worker_that_never_answered_is_not_silent_but_starting() -> None:
    made = Watched(hang_timeout_s=5.0)
    made.look(100)
    assert not made.silent
    assert made.hung == []


def test_a_process_that_is_gone_is_silent_no_more(watched: Watched) -> None:
    watched.look(MISSED + 1)
    assert watched.silent
    watched.vigil.look([])
    assert not watched.silent
    assert not watched.vigil.silent(None)


def test_a_process_that_answers_nothing_for_too_long_hangs() -> None:
    made = Watched(hang_timeout_s=5.0)
    made.look()
    made.answer()
    made.look()
    made.clock.advance(4.5)
    assert made.hung == []
    made.clock.advance(0.5)
    assert made.hung == ["worker"]


def test_nothing_hangs_where_that_is_off() -> None:
    made = Watched(hang_timeout_s=0.0)
    made.look()
    made.answer()
    made.look()
    made.judged(TrialOutcome.LATE)
    made.clock.advance(10_000.0)
    assert made.hung == []


def test_fronts_try_the_models_one_after_the_other(watched: Watched) -> None:
    interval = SurvivalSettings().canary_interval_s
    told = []
    for _ in range(4):
        watched.look(round(interval / TICK_S))
        told.append([TryModels(interval) in watched.told(front) for front in watched.fronts])
    assert sorted(told[:2]) == [[False, True], [True, False]]
    assert told[2:] == told[:2]


def test_models_are_not_tried_where_that_is_off_or_no_front_lives() -> None:
    made = Watched(canary_interval_s=0.0)
    made.look(1000)
    assert all(TryModels(0.0) not in made.told(front) for front in made.fronts)
    alone = Watched()
    alone.fronts.clear()
    alone.look(1000)


@pytest.mark.parametrize(
    ("outcomes", "sick"),
    [
        ([TrialOutcome.FAILED], True),
        ([TrialOutcome.LATE], True),
        ([TrialOutcome.BUSY], False),
        ([TrialOutcome.UNFIT], False),
        ([TrialOutcome.FAILED, TrialOutcome.BUSY], True),
        ([TrialOutcome.FAILED, TrialOutcome.OK], False),
        ([TrialOutcome.LATE, TrialOutcome.SERVED], False),
    ],
)
def test_a_model_is_sick_from_a_failed_trial_to_a_good_one(
    watched: Watched, outcomes: list[TrialOutcome], sick: bool
) -> None:
    for outcome in outcomes:
        watched.judged(outcome)
    assert (("m", 1) in watched.vigil.sick()) is sick


def test_a_worker_whose_model_answers_nobody_for_too_long_hangs(watched: Watched) -> None:
    limit = SurvivalSettings().hang_timeout_s
    watched.judged(TrialOutcome.LATE)
    watched.clock.advance(limit - 1)
    watched.judged(TrialOutcome.LATE)
    assert watched.hung == []
    watched.clock.advance(1)
    assert watched.hung == ["worker"]
    # A failure is an answer.
    watched.judged(TrialOutcome.FAILED)
    assert watched.hung == []


def test_models_that_are_not_loaded_any_more_are_forgotten(watched: Watched) -> None:
    watched.judged(TrialOutcome.LATE)
    watched.vigil.keep({("m", 1)})
    assert watched.vigil.sick() == {("m", 1): "late"}
    watched.vigil.keep({("m", 2)})
    watched.clock.advance(10_000.0)
    assert watched.vigil.sick() == {}
    assert watched.hung == []


class Replicas:
    """Two processes that each have the models."""

    def __init__(self) -> None:
        self.clock = FakeClock(1.0)
        self.made = [FakeChild("replica", index) for index in range(2)]
        self.living = [each.child for each in self.made]
        survival = SurvivalSettings()
        self.vigil = Watchdog(survival, self.clock, lambda: self.living, own_models=True)
        self.vigil.look(self.living)

    def judged(self, index: int, outcome: TrialOutcome) -> None:
        self.vigil.judged(self.made[index].child, TrialVerdict("m", 1, outcome, outcome.value))


def test_every_replica_tries_its_own_models() -> None:
    replicas = Replicas()
    interval = SurvivalSettings().canary_interval_s
    replicas.clock.advance(interval)
    replicas.vigil.look(replicas.living)
    for each in replicas.made:
        assert {each.hears(), each.hears()} == {Ping(), TryModels(interval)}


def test_a_model_is_sick_while_it_is_in_one_replica_whatever_others_say() -> None:
    replicas = Replicas()
    replicas.judged(0, TrialOutcome.LATE)
    replicas.judged(1, TrialOutcome.OK)
    assert replicas.vigil.sick() == {("m", 1): "late"}
    replicas.clock.advance(SurvivalSettings().hang_timeout_s)
    assert [child.name for child, _ in replicas.vigil.hung(lambda _: [])] == ["replica-0"]
    replicas.living.pop(0)
    replicas.vigil.look(replicas.living)
    assert replicas.vigil.sick() == {}
