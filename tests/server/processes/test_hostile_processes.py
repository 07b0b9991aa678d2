"""Small messages that would become large leave every arrangement as it was."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests import models
from tests.server.inference.hostile import SENSELESS, TOO_MANY_FIELDS
from tests.server.lifecycle.process import ready_process
from tests.server.security.test_strangers import children
from tests.server.serving import PATIENCE

ALL = TOO_MANY_FIELDS | SENSELESS
INFER = "/inference.GRPCInferenceService/ModelInfer"
MORE_MEMORY = 200 << 20
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
        pids = [process.pid, *children(process.pid)]
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
