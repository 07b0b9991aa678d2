"""A server of two GPUs on the stand-in: one breaks, and the other never stops."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from inferd.v1.server_pb2 import ModelVersionStatus, StatusRequest
from inferd.v1.server_pb2_grpc import ServerServiceStub

from tests import models
from tests.device.test_split import settings
from tests.server.lifecycle.process import PATIENCE, clean_environment
from tests.server.processes.split import (
    NOT_SERVING,
    SERVING,
    Callers,
    Readiness,
    Split,
    split_process,
)

pytestmark = pytest.mark.timeout(300)
FIRST, SECOND = (f"GPU-00000000-0000-0000-0000-00000000000{index}" for index in range(2))
PLACES = {"first": "[0]", "second": f"[{SECOND}]", "both": "all"}


@dataclass
class Host:
    """A server, and the switch that breaks its second GPU."""

    server: Split
    broken: Path

    def breaks(self) -> None:
        """Let the second GPU fail every call from now on."""
        (self.broken / "1").touch()

    def works_again(self) -> None:
        (self.broken / "1").unlink()

    def told(self) -> dict[str, ModelVersionStatus]:
        """Return what Status says of each model."""
        with self.server.channel() as channel:
            found = ServerServiceStub(channel).Status(StatusRequest(), timeout=PATIENCE).models
        return {each.name: each for each in found}

    def on(self, what: str, device: str) -> float:
        """Return a metric of a GPU."""
        return self.server.metrics()[f'inferd_device_{what}{{device="{device}"}}']


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    names = (*PLACES, "anywhere", "elsewhere")
    repository = models.repository(tmp_path / "models", dict.fromkeys(names, models.scale(2.0)))
    for name, gpus in PLACES.items():
        (repository / name / "model.yaml").write_text(f"gpus: {gpus}\n")
    plans, reports, broken = (tmp_path / name for name in ("plans", "reports", "broken"))
    reports.mkdir()
    broken.mkdir()
    found = {**settings(reports), "STANDIN_DEVICES": "2", "STANDIN_BROKEN": str(broken)}
    model = next(repository.glob("first/1/*.onnx"))
    subprocess.run(
        [sys.executable, "-m", "inferd_engines.tensorrt", str(model), "--output", str(plans)],
        env=clean_environment() | found,
        check=True,
        capture_output=True,
        timeout=60,
    )
    flags = ("--plan-store", str(plans), "--retry-wait-s", "60", "--fronts", "2")
    with split_process(repository, *flags, environment=found) as server:
        yield Host(server, broken)
        server.process.terminate()
        assert server.process.exit_code() == 0


def called(host: Host, model: str) -> Callers:
    return Callers(host.server, 2, timeout=60.0, model=model)


@pytest.mark.slow
def test_one_gpu_breaks_and_the_other_never_stops(host: Host) -> None:
    """A sticky error first, after which a new process works; then one for good."""
    assert {each.engine for each in host.told().values()} == {"tensorrt/Fake GPU"}
    before = host.server.pids()
    of_first, of_second = Readiness(host.server, "first"), Readiness(host.server, "second")
    with (
        called(host, "first") as first,
        called(host, "second") as second,
        called(host, "both") as both,
        called(host, "anywhere") as anywhere,
        called(host, "elsewhere") as elsewhere,
    ):
        everyone = (first, second, both, anywhere, elsewhere)
        for each in everyone:
            each.answered(10)
        assert min(host.on("rows_total", FIRST), host.on("rows_total", SECOND)) > 0
        assert (host.on("models", FIRST), host.on("models", SECOND)) == (3, 3)
        of_first.wait_for(SERVING)
        of_second.wait_for(SERVING)
        host.breaks()
        of_second.wait_for(NOT_SERVING)
        first.answered(20)
        both.answered(20)
        host.works_again()
        of_second.wait_for(SERVING)
        for each in everyone:
            each.answered(10)
        # What waited was answered by the next worker of the same GPU.
        assert host.server.pids()["worker-0"] == before["worker-0"]
        assert host.server.pids()["worker-1"] != before["worker-1"]
        assert set(second.codes) == {"OK"}
        host.breaks()
        host.server.process.wait_for("a GPU is given up: its models go to others")
        for each in (first, both, anywhere, elsewhere):
            each.answered(10)
    for each in (first, both, anywhere, elsewhere):
        assert (each.wrong, set(each.codes)) == ([], {"OK"})
    told = host.told()
    assert "is given up" in told["second"].reason
    assert SECOND in told["second"].reason
    assert {name for name, each in told.items() if each.state == "READY"} == {
        *("first", "both", "anywhere", "elsewhere")
    }
    assert (host.on("up", FIRST), host.on("up", SECOND)) == (1, 0)
    assert (host.on("models", FIRST), host.on("models", SECOND)) == (4, 0)
    assert host.on("restarts_total", FIRST) == 0
    assert host.server.pids()["worker-0"] == before["worker-0"]
    # Nobody else's readiness went for it, and that of the server tells.
    whole = Readiness(host.server)
    whole.wait_for(NOT_SERVING)
    for each in (of_first, of_second, whole):
        each.close()
