"""Chooses a transport for this host, and makes it."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

from google.protobuf.internal import api_implementation

from inferd_server.environment import heap_problem, listener_problem, probe_heap, protobuf_problem
from inferd_server.errors import StartupError
from inferd_server.transport.aio import AioTransport
from inferd_server.transport.call import Routes, Transport
from inferd_server.transport.completion_queue import CompletionQueueTransport, core
from inferd_server.transport.completion_queue.server import NoTurns, Turns
from inferd_server.transport.options import TransportOptions
from inferd_server.transport.selftest import selftest

AIO, COMPLETION_QUEUE = "aio", "completion_queue"

# Of many callers' small requests; measured in docs/benchmarks.md.
COST = "this transport serves about a quarter as many requests a second"


@dataclass(frozen=True, slots=True)
class Choice:
    """A transport's name, and why it is not the one that was wanted; empty where it is."""

    name: str
    reason: str = ""


def choose(
    asked: str,
    version: str,
    tested: Sequence[str],
    missing: Sequence[str],
    selftest: Callable[[], str],
) -> Choice:
    """Decide.

    Args:
        asked: "auto", "aio" or "completion_queue".
        version: of grpcio, installed.
        tested: minor versions of grpcio ("1.85") that the completion queue was tested with.
        missing: what the Cython layer lacks.
        selftest: returns what went wrong in calls over the completion queue; "" for nothing.
    """
    if asked == AIO:
        return Choice(AIO)
    cure = f"{COST}; {install(tested)} serves faster"
    if missing:
        return Choice(AIO, f"grpcio {version} lacks {', '.join(missing)}: {cure}")
    if minor(version) not in tested and asked == "auto":
        return Choice(AIO, f"grpcio {version} is not among those tested: {cure}")
    problem = selftest()
    if problem:
        return Choice(AIO, f"the self-test with grpcio {version} failed: {problem}: {cure}")
    return Choice(COMPLETION_QUEUE)


def minor(version: str) -> str:
    """Return the first two numbers of a version; patches of one minor keep its inner layer."""
    return ".".join(version.split(".")[:2])


def install(tested: Sequence[str]) -> str:
    """Return the command that installs the newest patch of the newest minor that was tested."""
    newest = max(tested, key=lambda each: [int(number) for number in each.split(".")])
    return f"pip install 'grpcio=={newest}.*'"


PROBE_BYTES = 1 << 16
"""More than the largest question for a health."""


def decide(asked: str, options: TransportOptions) -> Choice:
    """Choose, with the self-test where it matters; `asked` is the setting `transport`."""
    return choose(
        asked,
        version("grpcio"),
        core.TESTED,
        core.missing(),
        lambda: selftest(CompletionQueueTransport(private(options))),
    )


def make(
    name: str,
    options: TransportOptions,
    turns: Turns = NoTurns(),  # noqa: B008 it has no state
) -> Transport:
    """Make the transport of that name; only the completion queue takes turns."""
    return AioTransport(options) if name == AIO else CompletionQueueTransport(options, turns)


def for_probes(options: TransportOptions) -> TransportOptions:
    """Return the options of a plaintext port where the health of the server is asked for."""
    return replace(
        private(options),
        max_message_bytes=PROBE_BYTES,
        reuse_port=options.reuse_port,
        port_setting="probe_port",
    )


def private(options: TransportOptions) -> TransportOptions:
    """Return the options of a transport that only this process calls, on a port of its own.

    Limits are the usual ones: how large a caller's messages may be says nothing about gRPC.
    """
    usual = TransportOptions()
    return replace(
        options,
        max_message_bytes=usual.max_message_bytes,
        max_in_flight_bytes=usual.max_in_flight_bytes,
        max_unsent_bytes=usual.max_unsent_bytes,
        accept_compressed=usual.accept_compressed,
        max_compression_ratio=usual.max_compression_ratio,
        max_metadata_bytes=usual.max_metadata_bytes,
        credentials=None,
        reuse_port=False,
    )


log = logging.getLogger(__name__)


def choose_transport(asked: str, options: TransportOptions) -> str:
    """Return the name of the transport to serve, and log what is not as it was wanted."""
    choice = decide(asked, options)
    if choice.reason:
        log.warning("another transport", extra={"serves": choice.name, "reason": choice.reason})
    for problem in without_effect(choice, options):
        log.warning("the environment costs time", extra={"reason": problem})
    return choice.name


def without_effect(choice: Choice, options: TransportOptions) -> list[str]:
    """Return what `environment` asked for in vain, and what else makes this host slow."""
    try:
        wakeups = listener_wakeups(make(choice.name, private(options)))
        listener = listener_problem(os.environ, wakeups)
    except (OSError, StartupError) as error:
        listener = f"whether gRPC handles sockets on threads of its own is unknown: {error}"
    protobuf = protobuf_problem(os.environ, api_implementation.Type())
    problems = listener, heap_problem(os.environ, probe_heap()), protobuf
    return [problem for problem in problems if problem]


TASKS = Path("/proc/self/task")
THREADS = "event_engine"
SLEEPS = "voluntary_ctxt_switches:"
EXCHANGES = 20
PATIENCE_S = 5.0

# Source: RFC 9113, 3.4 (preface), 4.1 (frames) and 6.5 (SETTINGS, which must be acknowledged).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, ACKNOWLEDGED = 4, 1
EMPTY_SETTINGS = bytes((0, 0, 0, SETTINGS, 0, 0, 0, 0, 0))
HEADER_BYTES = 9


def listener_wakeups(transport: Transport) -> float:
    """Start a transport, exchange frames with it, stop it; return the wake-ups per exchange.

    Raises:
        OSError: no exchange was possible.
        StartupError: the transport does not start.
    """
    port = transport.start("127.0.0.1:0", Routes())
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as connection:
            return _exchange(connection)
    finally:
        transport.stop(0)


def _exchange(connection: socket.socket) -> float:
    with connection.makefile("rb") as frames:
        connection.sendall(PREFACE + EMPTY_SETTINGS)
        _await_acknowledgement(frames)
        before = wakeups()
        for _ in range(EXCHANGES):
            connection.sendall(EMPTY_SETTINGS)
            _await_acknowledgement(frames)
        return (wakeups() - before) / EXCHANGES


def _await_acknowledgement(frames: BinaryIO) -> None:
    while True:
        header = frames.read(HEADER_BYTES)
        if len(header) < HEADER_BYTES:
            raise ConnectionError("the connection was closed")
        frames.read(int.from_bytes(header[:3], "big"))
        if header[3] == SETTINGS and header[4] & ACKNOWLEDGED:
            return


def wakeups(tasks: Path = TASKS) -> int:
    """Return how often this process's event-engine threads went to sleep, as often as they woke.

    Not how often they had a processor: on a busy machine others take it away in between.

    Source: /proc/PID/task/TID/status, voluntary_ctxt_switches (Linux, proc.rst).
    """
    return sum(_sleeps(task) for task in tasks.iterdir())


def _sleeps(task: Path) -> int:
    try:
        if (task / "comm").read_text().strip() != THREADS:
            return 0
        lines = (task / "status").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(SLEEPS))
    except (FileNotFoundError, ProcessLookupError):
        # It has just ended.
        return 0
