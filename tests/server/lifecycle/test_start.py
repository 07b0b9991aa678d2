"""How a server starts, and how it refuses to: an exit code and one clear line."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from inferd.oip.v2 import inference_pb2 as oip
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd_server.probe import default_port
from inferd_server.settings.sources import fields

from tests import models
from tests.server.lifecycle.process import Process, finished, ready_process
from tests.server.serving import PATIENCE, arrays, infer_request, metrics_text, rows


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.repository(tmp_path_factory.mktemp("models"), {"scaled": models.scale(2.0)})


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_process_serves_and_its_metrics_show_the_batches(repository: Path) -> None:
    with ready_process(repository) as (process, where):
        with grpc.insecure_channel(f"127.0.0.1:{where['grpc_port']}") as channel:
            stub = GRPCInferenceServiceStub(channel)
            request = infer_request("scaled", rows(1.0, 2.0, 3.0))
            answer = stub.ModelInfer(request, timeout=PATIENCE)
            assert arrays(answer)["OUTPUT0"][:, 0].tolist() == [2, 4, 6]
        lines = metrics_text(where["metrics_port"]).splitlines()
        assert 'inferd_batch_rows_sum{model="scaled",version="1"} 3.0' in lines
        assert 'inferd_batch_rows_bucket{le="2.0",model="scaled",version="1"} 0.0' in lines
        assert "inferd_ready 1.0" in lines
        assert process.runs


def test_the_probe_tells_by_its_exit_code(repository: Path) -> None:
    with ready_process(repository) as (_, where):
        flags = ("--port", str(where["grpc_port"]))
        good = finished(*flags, module="inferd_server.probe")
        assert (good.stdout, good.returncode) == ("SERVING\n", 0)
        unknown = finished(*flags, "--service", "nope", module="inferd_server.probe")
        assert (unknown.stdout, unknown.returncode) == ("NOT_FOUND\n", 1)


@pytest.mark.parametrize(
    ("environment", "port"),
    [
        ({}, 8001),
        ({"INFERD_GRPC_PORT": "9001"}, 9001),
        ({"INFERD_GRPC_PORT": "9001", "INFERD_PROBE_PORT": "9003"}, 9003),
        ({"INFERD_GRPC_PORT": "9001", "INFERD_PROBE_PORT": "-1"}, 9001),
        ({"INFERD_GRPC_PORT": "0"}, 8001),
    ],
)
def test_the_probe_asks_where_probes_are_answered(environment: dict[str, str], port: int) -> None:
    assert default_port(environment) == port


def test_the_probe_tells_that_nobody_answers(taken: int) -> None:
    result = finished("--port", str(taken), "--timeout", "0.2", module="inferd_server.probe")
    assert result.returncode == 1
    assert result.stdout in {"DEADLINE_EXCEEDED\n", "UNAVAILABLE\n"}


@pytest.mark.parametrize("flag", ["--grpc-port", "--metrics-port", "--probe-port"])
def test_a_port_in_use_is_said_in_one_line(repository: Path, taken: int, flag: str) -> None:
    with Process("--model-repository", str(repository), flag, str(taken)) as process:
        assert process.exit_code() == 1
        said = process.wait_for("cannot start")
        assert str(taken) in said["error"]
        assert flag in said["error"]
        assert len(process.lines) == 1, process.lines


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("grpc_prot: 1\n", ("grpc_prot", "unknown", "grpc_port")),
        ("grpc_port: 99999\n", ("grpc_port", "65535")),
        ("grpc_port: [1\n", ("is not YAML",)),
        ("- a\n", ("must hold names and values",)),
    ],
)
def test_a_wrong_settings_file_is_said_in_one_line(
    tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    assert_refused(finished("--config", str(path)), 2, (str(path), *words))


def test_a_settings_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    assert_refused(finished("--config", str(missing)), 2, (str(missing), "No such file"))
    assert_refused(finished("--config", str(tmp_path)), 2, (str(tmp_path), "directory"))


def test_a_wrong_flag_is_said() -> None:
    assert_refused(finished("--grpc-port", "no"), 2, ("grpc_port", "'no'"))
    assert_refused(finished("--nope", "1"), 2, ("--nope",))


def test_a_wrong_variable_is_said() -> None:
    with Process(environment={"INFERD_MAX_QUEUE_ROWS": "many"}) as process:
        assert process.exit_code() == 2
        (line,) = process.lines
        assert "max_queue_rows" in line
        assert "environment" in line


def test_a_missing_repository_is_said_in_one_line(tmp_path: Path) -> None:
    result = finished("--model-repository", str(tmp_path / "none"), "--log-format", "json")
    assert_refused(result, 1, (str(tmp_path / "none"), "cannot be read"))


def assert_refused(result: object, code: int, words: tuple[str, ...]) -> None:
    text, exit_code = result.stderr, result.returncode  # type: ignore[attr-defined]
    assert exit_code == code, text
    assert "Traceback" not in text
    # argparse writes its usage before the line that matters.
    for word in words:
        assert word in text.splitlines()[-1], text


def test_help_lists_every_setting_with_its_default() -> None:
    result = finished("--help")
    assert result.returncode == 0
    for name in fields():
        assert f"--{name.replace('_', '-')}" in result.stdout
    assert "--config" in result.stdout
    assert "(default: 8001)" in result.stdout


def settled(stub: GRPCInferenceServiceStub) -> dict[str, tuple[str, bool]]:
    """Return the states of models, and whether there is a reason, while none is tried anew."""
    end = time.monotonic() + PATIENCE
    while True:
        index = stub.RepositoryIndex(oip.RepositoryIndexRequest(), timeout=PATIENCE).models
        states = {entry.name: (entry.state, bool(entry.reason)) for entry in index}
        if ("LOADING", False) not in states.values() or time.monotonic() > end:
            return states


@pytest.mark.parametrize("damage", ["corrupt", "truncated", "empty", "missing"])
@pytest.mark.parametrize("strict", [True, False])
def test_a_damaged_model_beside_a_good_one(tmp_path: Path, damage: str, strict: bool) -> None:
    models.repository(tmp_path, {"good": models.scale(2.0), "bad": models.add_sub()})
    file = tmp_path / "bad" / "1" / "model.onnx"
    content = file.read_bytes()
    damaged = {"corrupt": b"\xff" * 64, "truncated": content[: len(content) // 2], "empty": b""}
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(damaged[damage])
    flags = ("--model-repository", str(tmp_path), "--strict-readiness", json.dumps(strict))
    with Process(*flags) as process:
        where = process.wait_for("listening")
        process.wait_for("not ready" if strict else "ready")
        with grpc.insecure_channel(f"127.0.0.1:{where['grpc_port']}") as channel:
            stub = GRPCInferenceServiceStub(channel)
            good = stub.ModelInfer(infer_request("good", rows(4.0)), timeout=PATIENCE)
            assert arrays(good)["OUTPUT0"][0, 0] == 8
            states = settled(stub)
            assert states == {"good": ("READY", False), "bad": ("UNAVAILABLE", True)}
            ready = stub.ServerReady(oip.ServerReadyRequest(), timeout=PATIENCE).ready
            assert ready is not strict
        assert not any("Traceback" in line for line in process.lines)
