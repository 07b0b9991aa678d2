"""Callers that misbehave: they go away, never finish, never read, send too much or nonsense."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from typing import Self

import grpc
import numpy as np
from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub

from tests.server.processes.split import Split
from tests.server.serving import infer_request, rows

TIMEOUT_S, MARGIN_S = 5.0, 5.0
METHOD = "/inference.GRPCInferenceService/ModelInfer"
MAX_MESSAGE_BYTES = 1 << 20
"""What the server must be told to accept."""
OPEN = 20
"""Connections kept half open."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes.fromhex("000000040000000000")
# Source: RFC 9113, 4.1: a frame of 64 KiB that never comes, of any type, on any stream.
BEGUN = PREFACE + SETTINGS + bytes.fromhex("0040000104")
RESET = struct.pack("ii", 1, 0)
LOST = {"UNAVAILABLE", "CANCELLED"}
"""What a call may end with at any time, because its process was killed or it gave up."""


class Nuisance:
    """A thread that does one annoying thing after the other, the same for the same seed."""

    def __init__(self, server: Split, seed: int) -> None:
        self.codes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._server = server
        self._random = random.Random(seed)
        self._connections: deque[socket.socket] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(TIMEOUT_S + 2 * MARGIN_S)
        while self._connections:
            self._connections.popleft().close()
        assert not self._thread.is_alive(), "a caller hangs"

    def _run(self) -> None:
        kinds = (self._cancel, self._half_open, self._never_read, self._oversized, self._malformed)
        while not self._stop.is_set():
            with self._server.channel() as channel:
                for _ in range(20):
                    began = time.monotonic()
                    kind = self._random.choice(kinds)
                    kind(channel)
                    if time.monotonic() - began > TIMEOUT_S + MARGIN_S:
                        self.wrong.append(f"{kind.__name__} hung")

    def _cancel(self, channel: grpc.Channel) -> None:
        future = GRPCInferenceServiceStub(channel).ModelInfer.future(request(), timeout=TIMEOUT_S)
        self._stop.wait(self._random.random() * 0.005)
        future.cancel()

    def _half_open(self, _: grpc.Channel) -> None:
        host, _, port = self._server.address.rpartition(":")
        try:
            connection = socket.create_connection((host, int(port)), TIMEOUT_S)
            self._connections.append(connection)
            connection.sendall(BEGUN[: self._random.randint(0, len(BEGUN))])
        except OSError:
            # Of a front that was killed.
            return
        if len(self._connections) > OPEN:
            oldest = self._connections.popleft()
            if self._random.random() < 0.5:
                oldest.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            oldest.close()

    def _never_read(self, channel: grpc.Channel) -> None:
        stream = GRPCInferenceServiceStub(channel).ModelStreamInfer(many(), timeout=TIMEOUT_S)
        self._stop.wait(self._random.random() * 0.1)
        stream.cancel()

    def _oversized(self, channel: grpc.Channel) -> None:
        self._refused(channel, bytes(2 * MAX_MESSAGE_BYTES), "RESOURCE_EXHAUSTED")

    def _malformed(self, channel: grpc.Channel) -> None:
        # A field of a type that there is not.
        junk = b"\xff\x07" + self._random.randbytes(self._random.randint(0, 500))
        self._refused(channel, junk, "INVALID_ARGUMENT")

    def _refused(self, channel: grpc.Channel, message: bytes, code: str) -> None:
        try:
            channel.unary_unary(METHOD)(message, timeout=TIMEOUT_S, wait_for_ready=True)
        except grpc.RpcError as error:
            got = error.code().name
        else:
            got = "OK"
        self.codes[got] += 1
        if got not in {code, *LOST}:
            self.wrong.append(f"{got} instead of {code}")


def request() -> ModelInferRequest:
    return infer_request("scaled", rows(1.0))


def many() -> Iterator[ModelInferRequest]:
    """Yield requests whose answers are more than anybody buffers."""
    values = np.ones((32, 4), np.float32)
    for _ in range(2000):
        yield infer_request("scaled", {"INPUT0": values})
