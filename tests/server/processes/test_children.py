"""The rules of dying, with doubles for the processes and real links."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import pytest
from inferd_server.processes.channel import PeerLost
from inferd_server.processes.children import WORKER_LOST, Children, Events
from inferd_server.processes.link.layout import Layout
from inferd_server.processes.links import Links
from inferd_server.processes.messages import Attach, Detach, WorkerGone
from inferd_server.processes.policy import LIMIT, restart_delay
from inferd_server.processes.spawn import Child

from tests.fakes.child import WITHIN, FakeChild

LAYOUT = Layout(requests=8, input_bytes=1 << 16, answer_bytes=1 << 12)


class NotedLinks(Links):
    """Remembers which links were begun anew."""

    def __init__(self, count: int) -> None:
        super().__init__(count, LAYOUT)
        self.begun_anew: list[int] = []

    def reset(self, link: int) -> None:
        self.begun_anew.append(link)
        super().reset(link)


class Bench:
    """Children whose processes are doubles, started again only when the test lets them."""

    def __init__(self, fronts: int) -> None:
        self.links = NotedLinks(fronts)
        self.spawned: SimpleQueue[FakeChild] = SimpleQueue()
        self.later: SimpleQueue[tuple[float, Callable[[], None]]] = SimpleQueue()
        self.reasons: SimpleQueue[str] = SimpleQueue()
        self.failures: list[OSError] = []
        self.doubles: dict[str, FakeChild] = {}
        self.children = Children(
            self.links,
            threading.RLock(),
            self.events(),
            lambda seconds, task: self.later.put((seconds, task)),
        )

    def events(self) -> Events:
        return Events(
            spawn=self.spawn,
            handle=lambda child, message: None,
            changed=lambda: None,
            died=lambda child, code: None,
            gave_up=lambda role, index, reason: self.reasons.put(reason),
        )

    def spawn(self, role: str, index: int) -> Child:
        if self.failures:
            raise self.failures.pop()
        made = FakeChild(role, index)
        self.spawned.put(made)
        return made.child

    def next(self) -> FakeChild:
        """Return the process that starts next."""
        made = self.spawned.get(timeout=WITHIN)
        self.doubles[made.child.name] = made
        return made

    def again(self) -> FakeChild:
        """Let the process start again that waits for it."""
        self.later.get(timeout=WITHIN)[1]()
        return self.next()

    def __getitem__(self, name: str) -> FakeChild:
        return self.doubles[name]


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Two fronts and a worker that serves both."""
    made = Bench(2)
    made.children.start()
    for _ in range(3):
        made.next()
    assert {made["worker"].hears(), made["worker"].hears()} == {Attach(0), Attach(1)}
    for child in made.doubles.values():
        made.children.useful(child.child)
    yield made
    made.children.stop()
    for child in made.doubles.values():
        child.die()


def test_a_server_serves_while_a_worker_is_attached_to_a_front_that_listens(bench: Bench) -> None:
    assert bench.children.serving
    bench["worker"].die()
    bench["front-0"].hears()
    assert not bench.children.serving


def test_a_new_worker_gets_a_link_only_once_its_front_forgot_the_old_one(bench: Bench) -> None:
    bench["worker"].die()
    for name in ("front-0", "front-1"):
        assert bench[name].hears() == WorkerGone(WORKER_LOST)
    worker = bench.again()
    bench.children.disconnected(bench["front-1"].child, 0)
    assert worker.hears() == Attach(1)
    bench.children.disconnected(bench["front-0"].child, 0)
    assert worker.hears() == Attach(0)
    # The fronts did it themselves.
    assert bench.links.begun_anew == []


def test_a_front_that_owes_two_answers_is_served_after_the_second(bench: Bench) -> None:
    bench["worker"].die()
    bench.again().die()
    worker = bench.again()
    front = bench["front-0"].child
    bench.children.disconnected(front, 0)
    assert worker.channel.told.empty()
    bench.children.disconnected(front, 0)
    assert worker.hears() == Attach(0)


def test_a_new_front_gets_its_link_only_once_the_worker_left_it(bench: Bench) -> None:
    worker = bench["worker"]
    bench["front-1"].die()
    question, answer = worker.is_asked()
    assert question == Detach(1)
    assert bench.links.begun_anew == []
    answer.set_result(None)
    bench.again()
    assert worker.hears() == Attach(1)
    assert bench.links.begun_anew == [1]


def test_a_front_that_dies_with_the_worker_comes_back_with_it(bench: Bench) -> None:
    bench["front-1"].die()
    bench["worker"].is_asked()
    bench["worker"].die()
    # Both were seen to be lost before either starts again.
    starts = [bench.later.get(timeout=WITHIN)[1] for _ in range(2)]
    for start in starts:
        start()
        bench.next()
    bench.children.disconnected(bench["front-0"].child, 0)
    worker = bench["worker"]
    assert {worker.hears(), worker.hears()} == {Attach(0), Attach(1)}
    assert bench.links.begun_anew == [1]


def test_a_front_that_comes_back_before_the_worker_is_seen_lost_is_told_of_it(
    bench: Bench,
) -> None:
    bench["front-1"].die()
    _, answer = bench["worker"].is_asked()
    answer.set_exception(PeerLost("gone"))
    front = bench.again()
    assert bench["worker"].hears() == Attach(1)
    bench["worker"].die()
    assert front.hears() == WorkerGone(WORKER_LOST)
    worker = bench.again()
    assert worker.channel.told.empty()
    bench.children.disconnected(front.child, 0)
    assert worker.hears() == Attach(1)


def test_a_process_is_started_ever_later_and_then_given_up(bench: Bench) -> None:
    delays = []
    bench["worker"].die()
    for _ in range(LIMIT):
        seconds, start = bench.later.get(timeout=WITHIN)
        delays.append(seconds)
        start()
        bench.next().die()
    assert delays == [restart_delay(failures) for failures in range(1, LIMIT + 1)]
    reason = bench.reasons.get(timeout=WITHIN)
    assert reason.startswith(f"worker ended {LIMIT + 1} times before it was of any use: killed by")


def test_what_failed_before_a_process_was_useful_is_forgiven(bench: Bench) -> None:
    bench["worker"].die()
    for _ in range(LIMIT + 2):
        worker = bench.again()
        bench.children.useful(worker.child)
        worker.die()
    assert bench.later.get(timeout=WITHIN)[0] == restart_delay(1)
    assert bench.reasons.empty()
    assert bench.children.restarts["worker"] == LIMIT + 3


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (
            lambda children, child: children.kill(child, "it answers no pings"),
            "killed by the server: it answers no pings",
        ),
        (
            lambda children, child: children.ending(child, "it cannot listen: taken"),
            "it cannot listen: taken",
        ),
        (
            lambda children, child: None,
            "killed by SIGKILL, as the kernel does where memory runs out",
        ),
    ],
    ids=["by the server", "by itself", "by others"],
)
def test_the_cause_of_an_end_is_told_once(
    bench: Bench,
    caplog: pytest.LogCaptureFixture,
    end: Callable[[Children, Child], None],
    cause: str,
) -> None:
    child = bench["worker"]
    end(bench.children, child.child)
    child.die()
    bench.again()
    told = [vars(line)["cause"] for line in caplog.records if line.message == "lost"]
    assert told == [cause]


def test_a_process_that_cannot_be_started_is_tried_again(bench: Bench) -> None:
    bench.failures.append(OSError("no memory"))
    bench["worker"].die()
    bench.later.get(timeout=WITHIN)[1]()
    assert bench.again().child.role == "worker"


def test_nothing_starts_again_once_stopped(bench: Bench) -> None:
    bench["worker"].die()
    _, start = bench.later.get(timeout=WITHIN)
    bench.children.stop()
    start()
    bench["front-0"].die()
    bench.children.end()
    assert bench.spawned.empty()
    assert bench.later.empty()


def test_who_answers_nothing_is_killed_without_a_wait(bench: Bench) -> None:
    bench.children.stop()
    for child in bench.doubles.values():
        child.process.wait = refuse_to_wait(child.process.wait)  # type: ignore[method-assign]
    bench.children.end(silent=lambda _: True)
    assert all(child.process.killed for child in bench.doubles.values())


def refuse_to_wait(wait: Callable[[float | None], int]) -> Callable[..., int]:
    def waiting(timeout: float | None = None) -> int:
        assert not timeout, "a process that answers nothing was waited for"
        return wait(timeout)

    return waiting


def test_who_does_not_end_is_killed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferd_server.processes.children.CLOSE_S", 0.01)
    bench.children.stop()
    bench.children.end()
    assert all(child.process.killed for child in bench.doubles.values())


class ReplicaBench(Bench):
    """Children: two replicas, without any worker."""

    def __init__(self) -> None:
        super().__init__(0)
        self.children = Children(
            self.links,
            threading.RLock(),
            self.events(),
            lambda seconds, task: self.later.put((seconds, task)),
            replicas=2,
        )


@pytest.fixture
def replicas() -> Iterator[ReplicaBench]:
    made = ReplicaBench()
    made.children.start()
    for _ in range(2):
        made.next()
    yield made
    made.children.stop()
    for child in made.doubles.values():
        child.die()


def test_replicas_have_no_worker(replicas: ReplicaBench) -> None:
    assert sorted(replicas.doubles) == ["replica-0", "replica-1"]
    assert replicas.children.live_workers() == []
    assert replicas.children.everyone() == replicas.children.live_endpoints()


def test_a_replica_that_dies_is_started_again_under_its_name_and_no_other_hears_of_it(
    replicas: ReplicaBench,
) -> None:
    replicas["replica-1"].die()
    assert replicas.again().child.name == "replica-1"
    assert replicas["replica-0"].channel.told.empty()
    assert replicas["replica-0"].channel.asked.empty()
    assert replicas.links.begun_anew == []
    assert replicas.children.restarts["replica"] == 1


def test_replicas_that_never_get_as_far_as_to_serve_are_given_up(replicas: ReplicaBench) -> None:
    replicas["replica-0"].die()
    for _ in range(LIMIT):
        replicas.again().die()
    reason = replicas.reasons.get(timeout=WITHIN)
    assert reason.startswith(f"replica-0 ended {LIMIT + 1} times before it was of any use")
