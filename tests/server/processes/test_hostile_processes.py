"""Small messages that would become large leave every arrangement as it was."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from benchmarks.peers.memory import tree
from tests import models
from tests.server.inference.hostile import SENSELESS, TOO_MANY_FIELDS
from tests.server.lifecycle.process import ready_process
from tests.server.serving import PATIENCE

log = logging.getLogger(__name__)
ALL = TOO_MANY_FIELDS | SENSELESS
INFER = "/inference.GRPCInferenceService/ModelInfer"
MORE_MEMORY = 200 << 20
WAIT_S = 0.3
"""What another caller may wait because of one of these messages."""
TRIES, MOST_TRIES = 3, 20
"""Others use the machine, too: the best counts of so many, or of more where it is too long."""
REFUSED = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
ARRANGEMENTS = {
    "inline": ("inline",),
    "aio": ("threads", "--transport", "aio"),
    "split": ("split", "--fronts", "1"),
}


def peaks(pids: Iterable[int]) -> int:
    """Return the bytes that processes have had at most, all together."""
    lines = [Path(f"/proc/{pid}/status").read_text().splitlines() for pid in pids]
    found = [line.split()[1] for one in lines for line in one if line.startswith("VmHWM:")]
    return sum(map(int, found)) << 10


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_cheap_messages_cost_the_server_little_and_others_nothing(
    arrangement: str, tmp_path: Path
) -> None:
    folder = models.repository(tmp_path, {"simple": models.add_sub()})
    # So that it is the messages themselves that are refused.
    flags = ("--max-compression-ratio", "0", "--processes", *ARRANGEMENTS[arrangement])
    with ready_process(folder, *flags) as (process, where):
        pids = tree(process.pid)
        with grpc.insecure_channel(f"127.0.0.1:{where['grpc_port']}") as channel:
            call, health = channel.unary_unary(INFER), HealthStub(channel)
            before = peaks(pids)
            for message in ALL.values():
                refused = call.future(message, PATIENCE, compression=grpc.Compression.Gzip)
                answer = health.Check(HealthCheckRequest(), timeout=PATIENCE)
                assert answer.status == HealthCheckResponse.SERVING
                assert refused.code() in REFUSED
        assert peaks(pids) - before < MORE_MEMORY
        process.terminate()
        assert process.exit_code() == 0


class Waiting:
    """Another caller, who asks on and on, and how long it waited at most."""

    def __init__(self, address: str) -> None:
        self.longest = 0.0
        self._ended = threading.Event()
        self._address = address
        self._asks = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Waiting:
        self._thread.start()
        assert self._asks.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(PATIENCE)

    def _ask(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(self._address, options) as channel:
            health = HealthStub(channel)
            health.Check(HealthCheckRequest(), timeout=PATIENCE)
            self._asks.set()
            while not self._ended.is_set():
                begun = time.monotonic()
                health.Check(HealthCheckRequest(), timeout=PATIENCE)
                self.longest = max(self.longest, time.monotonic() - begun)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_no_cheap_message_keeps_another_caller_waiting(arrangement: str, tmp_path: Path) -> None:
    """`--log-cli-level info` shows how long, and the memory."""
    folder = models.repository(tmp_path, {"simple": models.add_sub()})
    flags = ("--max-compression-ratio", "0", "--processes", *ARRANGEMENTS[arrangement])
    with ready_process(folder, *flags) as (process, where):
        pids = tree(process.pid)
        address = f"127.0.0.1:{where['grpc_port']}"
        with grpc.insecure_channel(address) as channel:
            call = channel.unary_unary(INFER)

            def waited(message: bytes) -> float:
                with Waiting(address) as other:
                    refused = call.future(message, PATIENCE, compression=grpc.Compression.Gzip)
                    assert refused.code() in REFUSED
                return other.longest

            before = peaks(pids)
            found = {}
            for name, message in ALL.items():
                tries = [waited(message) for _ in range(TRIES)]
                while min(tries) > WAIT_S and len(tries) < MOST_TRIES:
                    tries.append(waited(message))
                found[name] = min(tries)
                log.info("%s, %s: %.0f ms", arrangement, name, found[name] * 1e3)
            grown = peaks(pids) - before
            log.info("%s: %d MB more", arrangement, grown >> 20)
        process.terminate()
        assert process.exit_code() == 0
    assert {name: took for name, took in found.items() if took > WAIT_S} == {}
    assert grown < MORE_MEMORY
