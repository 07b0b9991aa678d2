"""Starts a process of the server, connected to this one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from inferd_server.control.channel import Channel
from inferd_server.control.format import Told, pack
from inferd_server.control.messages import Place

MODULE = "inferd_server.child"
WORKER, FRONT = "worker", "front"


@dataclass(frozen=True, slots=True, eq=False)
class Child:
    """A process of the server."""

    role: str
    index: int
    process: subprocess.Popen[bytes]
    channel: Channel

    @property
    def name(self) -> str:
        """As the log calls it."""
        return name_of(self.role, self.index)


def name_of(role: str, index: int) -> str:
    """Return what the log calls a process."""
    return role if role == WORKER else f"{role}-{index}"


def spawn(role: str, place: Place, descriptors: Sequence[int], module: str = MODULE) -> Child:
    """Start a process anew, not by fork: gRPC and CUDA do not survive one.

    Args:
        role: WORKER or FRONT.
        place: its first message.
        descriptors: that it inherits, under the same numbers.
        module: that it runs.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        number = theirs.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", module, role, str(number), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            pass_fds=(number, *descriptors),
        )
    connection: Connection[Any, Any] = Connection(ours.detach())
    connection.send_bytes(pack(Told(place)))
    return Child(role, place.index, process, Channel(connection))
