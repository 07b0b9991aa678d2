"""A load in several processes: all serve the model, or none does."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from inferd_server.control.channel import PeerLost
from inferd_server.control.messages import Load
from inferd_server.errors import InvalidInput, ModelNotReady
from inferd_server.supervisor.vote import Vote

from tests.fakes.child import WITHIN, FakeChild

LOAD = Load("m")


class Bench:
    """A vote of three replicas, and threads to call it from."""

    def __init__(self, count: int = 3) -> None:
        self.made = [FakeChild("replica", index) for index in range(count)]
        self.vote = Vote([each.child for each in self.made])
        self._threads = ThreadPoolExecutor(16)
        self.load = self._threads.submit(self.vote.load, LOAD)
        self.answers: list[Future[object]] = []

    def asked(self, index: int) -> Future[object]:
        """Return where the answer of a replica goes, once it was asked to load."""
        message, answer = self.made[index].is_asked()
        assert message == LOAD
        self.answers.append(answer)
        return answer

    def opened(self, index: int) -> Future[None]:
        return self._threads.submit(self.vote.opened, self.made[index].child)

    def taking(self, index: int) -> Future[None]:
        return self._threads.submit(self.vote.taking, self.made[index].child)

    def close(self) -> None:
        for answer in self.answers:
            if not answer.done():
                answer.set_exception(PeerLost("the test ends"))
        self._threads.shutdown()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_the_first_replica_opens_a_model_before_any_other_is_asked(bench: Bench) -> None:
    bench.asked(0)
    assert bench.made[1].channel.asked.empty()
    waits = bench.opened(0)
    for index in (1, 2):
        bench.asked(index)
    bench.opened(1)
    assert not waits.done()
    bench.opened(2).result(WITHIN)
    waits.result(WITHIN)


def test_a_load_is_over_once_every_replica_serves(bench: Bench) -> None:
    answers = [bench.asked(0)]
    opened = [bench.opened(0)]
    for index in (1, 2):
        answers.append(bench.asked(index))
        opened.append(bench.opened(index))
    for each in opened:
        each.result(WITHIN)
    waits = [bench.taking(0), bench.taking(1)]
    assert not any(each.done() for each in waits)
    bench.taking(2).result(WITHIN)
    for each in waits:
        each.result(WITHIN)
    for answer in answers[:2]:
        answer.set_result(None)
    assert not bench.load.done()
    answers[2].set_result(None)
    bench.load.result(WITHIN)


def test_what_the_first_replica_cannot_load_reaches_no_other(bench: Bench) -> None:
    bench.asked(0).set_exception(InvalidInput("no model"))
    with pytest.raises(InvalidInput, match="no model"):
        bench.load.result(WITHIN)
    assert all(each.channel.asked.empty() for each in bench.made)


def test_what_one_replica_refuses_all_others_close_again(bench: Bench) -> None:
    first = bench.asked(0)
    waits = [bench.opened(0)]
    second, third = bench.asked(1), bench.asked(2)
    waits.append(bench.opened(1))
    third.set_exception(ModelNotReady("no memory"))
    for each in waits:
        with pytest.raises(ModelNotReady, match="another process could not load it: no memory"):
            each.result(WITHIN)
    # They have gone back before the caller hears of it.
    assert not bench.load.done()
    first.set_exception(ModelNotReady("another one"))
    second.set_exception(ModelNotReady("x"))
    with pytest.raises(ModelNotReady, match="no memory"):
        bench.load.result(WITHIN)


def test_a_replica_that_dies_while_it_opens_a_model_refuses_it(bench: Bench) -> None:
    first = bench.asked(0)
    waits = bench.opened(0)
    bench.asked(1).set_exception(PeerLost("gone"))
    third = bench.asked(2)
    with pytest.raises(ModelNotReady):
        waits.result(WITHIN)
    first.set_exception(ModelNotReady("another one"))
    third.set_exception(ModelNotReady("x"))
    with pytest.raises(PeerLost):
        bench.load.result(WITHIN)


def test_a_replica_that_dies_once_all_agreed_does_not_count(bench: Bench) -> None:
    answers = [bench.asked(0)]
    bench.opened(0)
    for index in (1, 2):
        answers.append(bench.asked(index))
        opened = bench.opened(index)
    opened.result(WITHIN)
    waits = [bench.taking(0), bench.taking(1)]
    answers[2].set_exception(PeerLost("gone"))
    for each in waits:
        each.result(WITHIN)
    for answer in answers[:2]:
        answer.set_result(None)
    bench.load.result(WITHIN)


def test_a_worker_that_asks_nobody_loads_as_it_answers() -> None:
    bench = Bench(1)
    bench.asked(0).set_result(None)
    bench.load.result(WITHIN)
    bench.close()


def test_who_asks_after_a_refusal_is_told_at_once(bench: Bench) -> None:
    bench.asked(0).set_exception(InvalidInput("no model"))
    with pytest.raises(InvalidInput):
        bench.load.result(WITHIN)
    with pytest.raises(ModelNotReady):
        bench.opened(0).result(WITHIN)
