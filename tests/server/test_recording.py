"""What a server recorded, replayed: in every arrangement, against the same version and another."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from inferd.recording import PARQUET
from inferd_client import Client, Request
from inferd_client.cli import main
from inferd_client.replay.recording import Recording
from inferd_server.batching.inline import InlineLoop

from tests import models
from tests.server.lifecycle.process import ready_process
from tests.server.serving import (
    Running,
    metrics_text,
    running,
    running_replicas,
    running_split,
)

Start = Callable[..., AbstractContextManager[Running]]
MODELS = {
    "scaled": {1: models.scale(2.0), 2: models.scale(3.0)},
    "small": models.identity("BF16"),
    "texts": models.identity("BYTES"),
    "summing": models.summing(),
}
YAML = {"scaled": "versions: all\n", "summing": models.SUMMING}


def running_inline(folder: Path, **settings: object) -> AbstractContextManager[Running]:
    """Serve on the transport's thread where that can be."""
    inline = InlineLoop(time.monotonic)
    return running(folder, inline=inline, processes="inline", **settings)


STARTS: Mapping[str, Start] = {
    "threads": running,
    "inline": running_inline,
    "split": running_split,
    "replicas": running_replicas,
}


def repository(folder: Path, *names: str) -> Path:
    served = {name: MODELS[name] for name in names}
    return models.repository(
        folder / "models", served, {name: YAML[name] for name in names if name in YAML}
    )


def settings(folder: Path, **changes: object) -> dict[str, object]:
    return {"sample_share": 1, "record_to": folder / "recording", **changes}


def replayed(
    port: int, recording: Path, capsys: pytest.CaptureFixture[str], *flags: str
) -> tuple[int, dict[str, object]]:
    """Return the exit code and the JSON."""
    capsys.readouterr()
    address = f"127.0.0.1:{port}"
    code = main(["replay", str(recording), "--url", address, "--json", *flags])
    return code, json.loads(capsys.readouterr().out)


def ask(server: Running, requests: Sequence[Request]) -> None:
    with Client(f"127.0.0.1:{server.port}") as client:
        assert all(item.error is None for item in client.stream(requests))


def scaled(value: float) -> Request:
    return Request("scaled", {"INPUT0": np.full((1, 4), value, np.float32)}, "1")


def test_a_thousand_requests_replayed_agree_and_another_version_is_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Twice and three times nothing are the same: only each hundredth tells the versions apart.
    values = [float(index) if index % 100 == 99 else 0.0 for index in range(1000)]
    folder = repository(tmp_path, "scaled")
    with running(folder, **settings(tmp_path)) as server:
        ask(server, list(map(scaled, values)))
    with running(folder) as server:
        recording = tmp_path / "recording"
        code, report = replayed(server.port, recording, capsys)
        assert (code, report["agreed"], report["requests"]) == (0, 1000, 1000)
        code, report = replayed(server.port, recording, capsys, "--version", "2")
        assert (code, report["agreed"], report["differed"]) == (1, 990, 10)
        different = report["different"]
        assert isinstance(different, list)
        assert [one["index"] for one in different] == list(range(99, 1000, 100))
        assert [one["outputs"][0]["largest"] for one in different] == list(range(99, 1000, 100))


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_every_arrangement_records_all_and_writes_it_when_it_is_told_to_stop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], start: Start
) -> None:
    texts = np.array([[b"a", b"", b"\xff\x00", "ä".encode()]], np.object_)
    # Replicas serve no sequences.
    names = [name for name in MODELS if start is not running_replicas or name != "summing"]
    requests = [scaled(float(index)) for index in range(50)]
    for index in range(20):
        rows = np.full((1, 4), index / 8, ml_dtypes.bfloat16)
        requests.append(Request("small", {"INPUT0": rows}, id=f"i{index}"))
        requests.append(Request("texts", {"INPUT0": texts}))
    if "summing" in names:
        for index in range(30):
            step = {"sequence_id": index % 3 + 1, "sequence_start": index < 3}
            rows = np.full((1, 4), index, np.float32)
            requests.append(Request("summing", {"INPUT0": rows}, parameters=step))
    folder = repository(tmp_path, *names)
    with start(folder, **settings(tmp_path)) as server:
        ask(server, requests)
        text = metrics_text(server.metrics_port)
        assert "inferd_samples_dropped_total" not in text
    found = list(Recording(str(tmp_path / "recording")))
    assert len(found) == len(requests)
    assert {path.suffix for path in (tmp_path / "recording").rglob("*-*")} == {f".{PARQUET}"}
    with running(folder) as server:
        code, report = replayed(server.port, tmp_path / "recording", capsys)
        assert (code, report["agreed"]) == (0, len(requests)), report


def test_what_was_recorded_is_counted_and_serving_goes_on_where_nothing_can_be_written(
    tmp_path: Path,
) -> None:
    # A file is where the folder should be.
    (tmp_path / "recording").write_text("")
    folder = repository(tmp_path, "scaled")
    with running(folder, **settings(tmp_path, record_part_bytes=1024)) as server:
        ask(server, [scaled(1.0)] * 20)
        assert server.server is not None
        observers = server.server.endpoint.observers
        assert observers.tap is not None
        assert observers.recorder is not None
        assert observers.tap.flush(10.0)
        assert observers.recorder.close(10.0)
        text = metrics_text(server.metrics_port)
        assert 'inferd_recording_dropped_total{model="scaled",version="1"} 20.0' in text
        ask(server, [scaled(1.0)])


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_whole_parts_only(tmp_path: Path) -> None:
    flags = ("--sample-share=1", f"--record-to={tmp_path / 'recording'}")
    more = ("--record-part-bytes=4096", "--processes=threads")
    with ready_process(repository(tmp_path, "scaled"), *flags, *more) as (process, where):
        with Client(f"127.0.0.1:{where['grpc_port']}") as client:
            for item in client.stream([scaled(float(index)) for index in range(2000)]):
                assert item.error is None
        process.terminate(signal.SIGKILL)
        process.exit_code()
    found = [one.inputs["INPUT0"][0, 0] for one in Recording(str(tmp_path / "recording"))]
    assert len(found) > 0
    assert set(found) <= set(range(2000))
