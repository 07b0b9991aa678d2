"""Drift of what callers send is told by /metrics and by `inferd drift`, in every arrangement."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inferd_client import Client
from inferd_client.cli import main
from inferd_server.batching.inline import InlineLoop

from tests import models
from tests.server.serving import (
    PATIENCE,
    Running,
    metrics_text,
    running,
    running_replicas,
    running_split,
)

WATCHING: dict[str, object] = {
    "sample_share": 1,
    "drift_cpu_share": 1,
    "drift_window_rows": 300,
}


def inline(repository: Path, **settings: object) -> AbstractContextManager[Running]:
    return running(repository, inline=InlineLoop(time.monotonic), **settings)


def repository(folder: Path, *, reference: bool) -> Path:
    models.save(models.scale(2.0), folder / "models/m/1/model.onnx")
    if reference:
        x = np.random.default_rng(7).normal(0, 1, (1000, 4)).astype(np.float32)
        np.savez(folder / "models/m/1/reference.npz", INPUT0=x)
    return folder / "models"


class Sending:
    """Rows that are the same in every run of a test, so that it finds the same each time."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(8)

    def __call__(self, client: Client, shift: float, requests: int = 30) -> None:
        for _ in range(requests):
            x = self._rng.normal(shift, 1, (10, 4)).astype(np.float32)
            client.infer("m", INPUT0=x)


@pytest.fixture
def send() -> Sending:
    return Sending()


def known(client: Client, ready: Callable[[Any], bool]) -> Any:
    """Return what is told of the one version that is watched, once it is as expected."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = client.drift()
        if found and ready(found[0]):
            return found[0]
    raise AssertionError(f"the server tells {found}")


arrangements = pytest.mark.parametrize(
    "arrangement",
    [
        inline,
        running,
        running_split,
        pytest.param(running_replicas, marks=pytest.mark.slow),
    ],
)


@arrangements
def test_requests_that_drift_are_told_and_those_that_do_not_are_not(
    arrangement: Callable[..., AbstractContextManager[Running]], tmp_path: Path, send: Sending
) -> None:
    kept = {"verdict_store": tmp_path / "kept"}
    folder = repository(tmp_path, reference=True)
    with (
        arrangement(folder, **WATCHING, **kept) as server,
        Client(f"127.0.0.1:{server.port}") as client,
        Client(f"127.0.0.1:{server.port}") as another,
    ):
        # Of two processes with callers each may have one of them.
        send(client, 0.0, 15)
        send(another, 0.0, 15)
        first = known(client, lambda found: found["windows"] == 1)
        assert first["reference"] == {"source": "reference.npz", "rows": 1000}
        assert first["window"]["rows"] == 300
        assert not first["window"]["alarm"]
        send(client, 1.0, 15)
        send(another, 1.0, 15)
        second = known(client, lambda found: found["windows"] == 2)
        assert second["alarms"] == 1
        drifted = {one["feature"] for one in second["features"] if one["alarm"]}
        assert drifted == {
            f"{name}[{index}]" for name in ("INPUT0", "OUTPUT0") for index in range(4)
        }
        told = metrics_text(server.metrics_port)
    assert 'inferd_drift_alarms_total{model="m",version="1"} 1' in told
    assert 'inferd_drift_alarm{feature="INPUT0[2]",model="m",version="1"} 1' in told


@pytest.mark.parametrize(
    "arrangement", [inline, pytest.param(running_split, marks=pytest.mark.slow)]
)
def test_a_reference_is_learned_once_for_all_processes_and_every_later_start(
    arrangement: Callable[..., AbstractContextManager[Running]], tmp_path: Path, send: Sending
) -> None:
    settings = {**WATCHING, "drift_learn_rows": 200, "verdict_store": tmp_path / "kept"}
    folder = repository(tmp_path, reference=False)
    with (
        arrangement(folder, **settings) as server,
        Client(f"127.0.0.1:{server.port}") as client,
    ):
        # The first 200 rows are learned from, and the window has the rest.
        send(client, 0.0, 50)
        found = known(client, lambda found: found["windows"] == 1)
        assert found["reference"] == {"source": "the first 200 rows", "rows": 200}
        assert not found["window"]["alarm"]
    with (
        arrangement(folder, **settings) as server,
        Client(f"127.0.0.1:{server.port}") as client,
    ):
        send(client, 1.5)
        found = known(client, lambda found: found["windows"] == 1)
        assert found["reference"]["rows"] == 200
        assert found["window"]["alarm"]


def test_the_command_prints_a_table_json_and_a_picture_and_its_exit_code_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], send: Sending
) -> None:
    folder = repository(tmp_path, reference=True)
    with (
        running(folder, **WATCHING) as server,
        Client(f"127.0.0.1:{server.port}") as client,
    ):
        url = f"--url=127.0.0.1:{server.port}"
        assert main(["drift", url]) == 1
        assert (
            "no request of any model was compared with a reference yet" in capsys.readouterr().err
        )
        send(client, 0.0, 10)
        known(client, lambda found: found["open_rows"] == 100)
        assert main(["drift", url, "--check"]) == 0
        assert "no window was judged yet, 100 rows" in capsys.readouterr().out
        send(client, 2.0, 20)
        known(client, lambda found: found["windows"] == 1)
        picture = tmp_path / "drift.svg"
        assert main(["drift", url, "m", "--check", f"--picture={picture}"]) == 3
        told = capsys.readouterr().out
        assert "drift in the last window (300 rows" in told
        assert "INPUT0[3]" in told
        assert main(["drift", url, "m", "--model-version=1", "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)
        assert sum(found["features"][0]["window"]) == 300
        assert main(["drift", url, "other"]) == 1
        assert main(["drift", url, "m", "--model-version=x"]) == 1
        client.unload("m")
        assert client.drift() == []
        assert "inferd_drift" not in metrics_text(server.metrics_port)
    drawn = picture.read_text()
    assert drawn.startswith("<svg")
    assert drawn.count('class="drifted"') > 8 * 10
