"""Starts a process of the server, connected to this one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from inferd_server.processes.channel import Channel
from inferd_server.processes.format import Told, pack
from inferd_server.processes.messages import ProcessPlace
from inferd_server.processes.output import Output

MODULE = "inferd_server.processes.child"
WORKER, FRONT, REPLICA = "worker", "front", "replica"


@dataclass(frozen=True, slots=True, eq=False)
class Child:
    """A process of the server."""

    role: str
    index: int
    process: subprocess.Popen[bytes]
    channel: Channel
    output: Output | None = None
    """What it writes to its standard error."""
    alone: bool = True
    """False for one of several workers."""

    @property
    def name(self) -> str:
        """As the log calls it."""
        return name_of(self.role, self.index, self.alone)


def name_of(role: str, index: int, alone: bool = True) -> str:
    """Return what the log calls a process; `alone`: there is no other worker."""
    return role if role == WORKER and alone else f"{role}-{index}"


def environment_for(device: str) -> dict[str, str] | None:
    """Return the environment of a process that is to see one GPU alone; None: the own one.

    Source: CUDA C++ Programming Guide, "CUDA Environment Variables".
    """
    return {**os.environ, "CUDA_VISIBLE_DEVICES": device} if device else None


def spawn(
    role: str, place: ProcessPlace, descriptors: Sequence[int], module: str = MODULE
) -> Child:
    """Start a process anew, not by fork: gRPC and CUDA do not survive one.

    Its log goes where this process's does. Its standard error is a pipe that this process reads,
    and that never blocks: what nobody reads is lost.

    Args:
        role: WORKER, FRONT or REPLICA.
        place: its first message.
        descriptors: that it inherits, under the same numbers.
        module: that it runs.
    """
    name = name_of(role, place.index, place.alone)
    ours, theirs = socket.socketpair()
    with theirs, os.fdopen(os.dup(2), "wb") as log, piped(name) as (written, output):
        numbers = theirs.fileno(), log.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", module, role, str(os.getpid()), *map(str, numbers)],
            stdin=subprocess.DEVNULL,
            stderr=written,
            pass_fds=(*numbers, *descriptors),
            env=environment_for(place.device),
        )
    connection: Connection[Any, Any] = Connection(ours.detach())
    connection.send_bytes(pack(Told(place)))
    return Child(role, place.index, process, Channel(connection), output, place.alone)


@contextmanager
def piped(name: str) -> Iterator[tuple[int, Output]]:
    """Give the writing end of a pipe, to be inherited, and what reads the other one."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(writer, False)
    try:
        yield writer, Output(name, reader)
    finally:
        os.close(writer)
