"""What the kernel tells of the sockets of a port."""

from __future__ import annotations

import os
import queue
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inferd_server.transport.sockets import Arriving, has_unread, place_of, sockets_of

from tests.server.transport.client import PATIENCE


def listening() -> tuple[socket.socket, int]:
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, int(listener.getsockname()[1])


def test_a_connection_that_waits_and_bytes_that_wait_are_seen() -> None:
    listener, port = listening()
    with listener:
        assert not has_unread(port)
        with socket.create_connection(("127.0.0.1", port)) as caller:
            assert has_unread(port)
            accepted, _ = listener.accept()
            with accepted:
                assert not has_unread(port)
                caller.sendall(b"ab")
                assert has_unread(port)
                accepted.recv(1)
                assert has_unread(port)
                accepted.recv(1)
                assert not has_unread(port)
                assert set(sockets_of(port)) == {listener.fileno(), accepted.fileno()}


def test_other_ports_and_other_descriptors_are_passed_over() -> None:
    (listener, port), (other, other_port) = listening(), listening()
    ends = socket.socketpair()
    read, write = os.pipe()
    with listener, other, ends[0], ends[1]:
        ends[0].sendall(b"x")
        os.write(write, b"x")
        with socket.create_connection(("127.0.0.1", other_port)):
            assert not has_unread(port)
            assert has_unread(other_port)
    os.close(read)
    os.close(write)


def test_a_connection_to_a_unix_socket_is_seen_like_any_other(tmp_path: Path) -> None:
    address = f"unix://{tmp_path / 'socket'}"
    place = place_of(address, 1)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        listener.bind(str(place))
        listener.listen()
        assert not has_unread(place)
        caller.connect(str(place))
        assert has_unread(place)
        accepted, _ = listener.accept()
        with accepted:
            assert not has_unread(place)
            caller.sendall(b"a")
            assert has_unread(place)
            assert not has_unread(tmp_path / "other")


def test_nothing_arrives_only_after_a_time_in_which_every_other_thread_waited() -> None:
    """It waits at each look; but what it was given in between it may have handed on."""
    given: queue.Queue[bytes] = queue.Queue()
    done: queue.Queue[bytes] = queue.Queue()

    def work() -> None:
        while data := given.get():
            done.put(data)

    listener, port = listening()
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    with listener:
        arriving = Arriving(port)
        await_rest(arriving)
        given.put(b"x")
        assert done.get(timeout=PATIENCE) == b"x"
        assert arriving.look()
        await_rest(arriving)
        given.put(b"")
        worker.join()
        assert arriving.look()


def test_what_arrives_at_the_place_is_seen_while_every_thread_waits() -> None:
    listener, port = listening()
    with listener:
        arriving = Arriving(port)
        await_rest(arriving)
        with socket.create_connection(("127.0.0.1", port)):
            assert all(arriving.look() for _ in range(20))


def await_rest(arriving: Arriving) -> None:
    until = time.monotonic() + PATIENCE
    while arriving.look():
        assert time.monotonic() < until


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_where_nothing_can_be_seen_something_may_be_there() -> None:
    listener, port = listening()
    with listener:
        arriving = Arriving(port)
        await_rest(arriving)
        with no_descriptor_left():
            assert has_unread(port)
            assert all(arriving.look() for _ in range(20))
        assert not has_unread(port)
