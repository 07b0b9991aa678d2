"""What the kernel tells of the sockets of a port."""

from __future__ import annotations

import hashlib
import os
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from inferd_server.transport.sockets import has_unread, others_run, sockets_of

LARGE = bytes(1 << 20)


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


def test_a_thread_that_works_is_seen_and_one_that_waits_is_not() -> None:
    end = threading.Event()

    def work() -> None:
        while not end.is_set():
            hashlib.sha256(LARGE)  # without the interpreter's lock

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        assert any(others_run() for _ in range(200))
    finally:
        end.set()
        worker.join()
    assert not all(others_run() for _ in range(200))


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
        with no_descriptor_left():
            assert has_unread(port)
            assert others_run()
        assert not has_unread(port)
