"""The polling thread sleeps on core's descriptor and an eventfd, and hears of both."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from inferd_server.transport.call import Routes, Transport
from inferd_server.transport.completion_queue import CompletionQueueTransport, sleep
from inferd_server.transport.completion_queue.sleep import Sleep, core_descriptor
from inferd_server.transport.options import TransportOptions

from tests.server.transport.client import PATIENCE
from tests.server.transport.contract import OPTIONS, UnaryContract
from tests.server.transport.stop_contract import StopContract
from tests.server.transport.stream_contract import StreamContract

NOTHING = Routes({}, {})


@pytest.fixture
def wake() -> Iterator[int]:
    made = os.eventfd(0, os.EFD_NONBLOCK)
    yield made
    os.close(made)


class Woken(CompletionQueueTransport):
    """The transport as a front has it, which an eventfd wakes."""

    def start(self, address: str, routes: Routes) -> int:
        port = super().start(address, routes)
        assert self.wake_by(os.eventfd(0, os.EFD_NONBLOCK))
        return port


class Made:
    """Makes the transport under test; the clients of the tests poll the same descriptor."""

    def make(self, options: TransportOptions = OPTIONS) -> Transport:
        return Woken(options)


class TestWokenUnary(Made, UnaryContract):
    pass


class TestWokenStream(Made, StreamContract):
    pass


class TestWokenStop(Made, StopContract):
    pass


class Turns:
    """Work that notes how often it was done."""

    def __init__(self) -> None:
        self.done = threading.Semaphore(0)

    def turn(self) -> None:
        self.done.release()


def test_a_sleep_ends_when_the_eventfd_is_written_to(
    wake: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sleep, "IDLE_S", PATIENCE)
    quiet, other = socket.socketpair()
    with quiet, other:
        sleeps = Sleep(quiet.fileno(), wake)
        sleeping = threading.Thread(target=sleeps, args=(None,))
        sleeping.start()
        sleeps.end()
        sleeping.join(PATIENCE / 2)
        assert not sleeping.is_alive()
    with pytest.raises(BlockingIOError):
        os.eventfd_read(wake)


def test_a_sleep_ends_when_core_has_something_to_do(
    wake: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sleep, "LONGEST_S", PATIENCE)
    core, other = socket.socketpair()
    with core, other:
        sleeping = threading.Thread(target=Sleep(core.fileno(), wake), args=(PATIENCE,))
        sleeping.start()
        other.send(b"x")
        sleeping.join(PATIENCE / 2)
        assert not sleeping.is_alive()


def test_an_eventfd_gives_the_turns_their_time(wake: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sleep, "IDLE_S", PATIENCE)
    turns = Turns()
    transport = CompletionQueueTransport(OPTIONS, turns)
    port = transport.start("127.0.0.1:0", NOTHING)
    assert transport.wake_by(wake)
    # It waits for core alone until its next event.
    with (
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"),
    ):
        channel.unary_unary("/no/Method")(b"", timeout=PATIENCE)
    while turns.done.acquire(timeout=0.2):
        """Until it sleeps."""
    os.eventfd_write(wake, 1)
    assert turns.done.acquire(timeout=PATIENCE / 2)
    transport.stop(0)


def test_a_transport_that_does_not_find_cores_descriptor_leaves_the_eventfd_to_others(
    wake: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "inferd_server.transport.completion_queue.server.core_descriptor", lambda place: None
    )
    transport = CompletionQueueTransport(OPTIONS)
    transport.start("127.0.0.1:0", NOTHING)
    assert not transport.wake_by(wake)
    transport.stop(0)


def test_the_descriptor_is_the_epoll_set_that_a_socket_of_the_place_is_in(tmp_path: Path) -> None:
    (tmp_path / "3").write_text("pos:\t0\nflags:\t02\n")
    (tmp_path / "5").write_text("pos:\t0\ntfd:       21 events: 19 data: 15\n")
    (tmp_path / "12").write_text("tfd:        7 events: 19 data: 7\ntfd:  8 events: 19 data: 8\n")
    assert core_descriptor(1, lambda place: [8], tmp_path) == 12
    assert core_descriptor(1, lambda place: [2], tmp_path) is None


def test_the_descriptor_of_a_real_epoll_set_is_found() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    with listening, select.epoll() as epoll:
        epoll.register(listening.fileno(), select.EPOLLIN)
        assert core_descriptor(listening.getsockname()[1]) == epoll.fileno()
