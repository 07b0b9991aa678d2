"""Messages between processes: in order, answered or lost, and nobody who sends waits."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import pytest
from inferd_server.errors import InvalidInput, Unavailable
from inferd_server.processes.channel import Channel, PeerLost, answers

PATIENCE = 10.0
Ends = tuple[Channel, Channel]


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = socket.socketpair()
    made = Channel(Connection(ours.detach())), Channel(Connection(theirs.detach()))
    yield made
    for channel in made:
        channel.close()


def reading(channel: Channel, handle: Callable[[object], object]) -> threading.Thread:
    thread = threading.Thread(target=channel.read, args=(handle,), daemon=True)
    thread.start()
    return thread


def refuse(_: object) -> object:
    raise InvalidInput("not that")


def test_what_is_told_arrives_in_order_and_before_the_end(ends: Ends) -> None:
    ours, theirs = ends
    heard: list[object] = []
    for number in range(1000):
        ours.tell(number)
    ours.close()
    reader = reading(theirs, heard.append)
    reader.join(PATIENCE)
    assert heard == list(range(1000))


def test_a_question_gets_its_own_answer_or_error(ends: Ends) -> None:
    ours, theirs = ends
    reading(ours, lambda _: None)
    reading(theirs, lambda body: refuse(body) if body == "bad" else f"{body}!")
    questions = [ours.ask("one"), ours.ask("bad"), ours.ask("two")]
    assert questions[0].result(PATIENCE) == "one!"
    assert questions[2].result(PATIENCE) == "two!"
    with pytest.raises(InvalidInput, match="not that"):
        questions[1].result(PATIENCE)


def test_questions_fail_when_the_other_end_goes_and_are_passed_over(ends: Ends) -> None:
    ours, theirs = ends
    open_question = ours.ask("anything")
    theirs.close()
    reading(ours, lambda _: None).join(PATIENCE)
    assert isinstance(open_question.exception(PATIENCE), PeerLost)
    assert isinstance(ours.ask("later").exception(PATIENCE), PeerLost)
    assert answers([open_question], PATIENCE) == []


def test_who_sends_does_not_wait_for_who_does_not_read(ends: Ends) -> None:
    ours, theirs = ends
    for _ in range(50):
        ours.tell(bytes(1 << 20))
    heard: queue.Queue[object] = queue.Queue()
    reading(theirs, heard.put)
    assert [heard.get(timeout=PATIENCE) for _ in range(50)] == [bytes(1 << 20)] * 50


def test_of_what_changes_quickly_only_the_latest_is_sent(ends: Ends) -> None:
    ours, theirs = ends
    states = iter(["newest", None, None])
    held = threading.Event()
    ours.tell_latest(lambda: held.wait(PATIENCE) and None)
    for _ in range(3):
        ours.tell_latest(lambda: next(states))
    ours.tell("after")
    held.set()
    heard: queue.Queue[object] = queue.Queue()
    reading(theirs, heard.put)
    assert [heard.get(timeout=PATIENCE) for _ in range(2)] == ["newest", "after"]


def test_what_cannot_be_sent_or_handled_stops_nothing(ends: Ends) -> None:
    ours, theirs = ends
    reading(ours, lambda _: None)

    def handle(body: object) -> object:
        if body == "raise":
            raise RuntimeError("broken")
        return threading.Lock() if body == "unsendable" else body

    reading(theirs, handle)
    ours.tell("raise")
    for body in ("raise", "unsendable", threading.Lock()):
        assert isinstance(ours.ask(body).exception(PATIENCE), Unavailable)
    assert ours.ask("still here").result(PATIENCE) == "still here"
