"""What the command makes of its surroundings: sockets, streams, signals, and a single file."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub

from tests import models
from tests.server.lifecycle.process import (
    PATIENCE,
    Process,
    clean_environment,
    finished,
    ready_process,
)
from tests.server.serving import arrays, infer_request, rows

ARRANGEMENTS = ["inline", "threads", "split"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.repository(tmp_path_factory.mktemp("models"), {"scaled": models.scale(2.0)})


def answered(target: str, model: str = "scaled") -> float:
    with grpc.insecure_channel(target) as channel:
        request = infer_request(model, rows(1.0))
        stub = GRPCInferenceServiceStub(channel)
        return float(arrays(stub.ModelInfer(request, timeout=PATIENCE))["OUTPUT0"][0, 0])


def await_serving(target: str) -> None:
    """Wait for a server that cannot be followed by its log."""
    with grpc.insecure_channel(target) as channel:
        request = HealthCheckRequest()
        watch = HealthStub(channel).Watch(request, timeout=PATIENCE, wait_for_ready=True)
        while next(watch).status != HealthCheckResponse.SERVING:
            pass


@pytest.mark.parametrize("processes", ARRANGEMENTS)
def test_a_unix_socket_can_be_listened_on(repository: Path, tmp_path: Path, processes: str) -> None:
    target = f"unix://{tmp_path}/inferd.sock"
    flags = ("--host", target, "--processes", processes)
    with ready_process(repository, *flags) as (process, where):
        assert where["host"] == target
        assert "grpc_port" not in where
        assert answered(target) == 2.0
        with Process("--model-repository", str(repository), *flags) as other:
            assert "Address already in use" in other.wait_for("cannot start")["error"]
        assert answered(target) == 2.0
        process.terminate(signal.SIGTERM)
        assert process.exit_code() == 0


def test_a_socket_that_a_dead_server_left_is_replaced(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "inferd.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with ready_process(repository, "--host", f"unix://{path}"):
        assert answered(f"unix://{path}") == 2.0


@pytest.mark.parametrize(
    ("place", "why"),
    [("none/inferd.sock", "No such file"), ("file", "a file that is no socket is there")],
)
def test_a_path_where_no_socket_can_be_is_said(
    repository: Path, tmp_path: Path, place: str, why: str
) -> None:
    (tmp_path / "file").touch()
    flags = ("--model-repository", str(repository), "--host", f"unix://{tmp_path / place}")
    with Process(*flags) as process:
        said = process.wait_for("cannot start")["error"]
        assert said.startswith("host: unix://")
        assert why in said
        assert process.exit_code() == 1


@pytest.mark.parametrize("processes", ARRANGEMENTS)
@pytest.mark.parametrize("host", ["no-such-host.invalid", "203.0.113.7"])
def test_a_host_that_cannot_be_had_is_named_and_no_port(
    repository: Path, host: str, processes: str
) -> None:
    flags = ("--model-repository", str(repository), "--host", host, "--processes", processes)
    with Process(*flags) as process:
        said = process.wait_for("cannot start")["error"]
        assert said.startswith(f"host: '{host}' cannot be listened on: ")
        assert "--host" in said
        assert "port" not in said
        assert process.exit_code() == 1


def blocked(pid: int) -> int:
    """Return the signals that a process holds back, as bits."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("SigBlk:")[2].split()[0], 16)


@pytest.mark.parametrize("processes", ARRANGEMENTS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_before_the_server_can_stop_is_kept(
    repository: Path, number: signal.Signals, processes: str
) -> None:
    """As process 1 of a container it would be lost, and the server never stop."""
    flags = ("--model-repository", str(repository), "--processes", processes)
    with Process(*flags) as process:
        seen = threading.Event()
        while not blocked(process.pid) & 1 << (number - 1):
            assert process.runs
            seen.wait(0.001)
        process.terminate(number)
        assert process.exit_code() == 0
        process.wait_for("stopped")


@pytest.mark.parametrize("processes", ARRANGEMENTS)
@pytest.mark.parametrize("closed", ["2>&-", "0<&- 1>&- 2>&-"])
def test_a_server_without_standard_streams_serves(
    repository: Path, tmp_path: Path, processes: str, closed: str
) -> None:
    target = f"unix://{tmp_path}/inferd.sock"
    flags = f"--metrics-port 0 --host {target} --processes {processes}"
    command = f"exec {sys.executable} -m inferd_server {flags} {closed}"
    environment = clean_environment() | {"INFERD_MODEL_REPOSITORY": str(repository)}
    with subprocess.Popen(["/bin/sh", "-c", command], env=environment) as process:
        try:
            await_serving(target)
            assert answered(target) == 2.0
            assert Path(f"/proc/{process.pid}/fd/2").readlink() == Path(os.devnull)
            process.terminate()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


@pytest.fixture
def heeded_hangup() -> Iterator[None]:
    """Let children heed SIGHUP, which they ignore where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("processes", ARRANGEMENTS)
@pytest.mark.usefixtures("heeded_hangup")
def test_a_hangup_without_a_terminal_is_said_to_be_ignored(
    repository: Path, processes: str
) -> None:
    with ready_process(repository, "--processes", processes) as (process, where):
        process.terminate(signal.SIGHUP)
        process.wait_for(
            "SIGHUP is ignored: certificates and identities are read whenever they change, "
            "settings at the start, and models when they are loaded by a call"
        )
        assert answered(f"127.0.0.1:{where['grpc_port']}") == 2.0
        process.terminate()
        assert process.exit_code() == 0
        process.wait_for("stopped")


@contextmanager
def service_manager(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(PATIENCE)
        manager.bind(address.replace("@", "\0", 1))
        yield manager


@pytest.mark.parametrize("processes", ARRANGEMENTS)
@pytest.mark.parametrize("abstract", [True, False])
def test_a_service_manager_is_told_of_start_and_end(
    repository: Path, tmp_path: Path, processes: str, abstract: bool
) -> None:
    address = f"@inferd-{os.getpid()}-{processes}" if abstract else f"{tmp_path}/notify"
    flags = ("--model-repository", str(repository), "--processes", processes)
    with (
        service_manager(address) as manager,
        Process(*flags, environment={"NOTIFY_SOCKET": address}) as process,
    ):
        assert manager.recv(100) == b"READY=1"
        process.wait_for("ready")
        process.terminate()
        assert manager.recv(100) == b"STOPPING=1"
        assert process.exit_code() == 0


def test_a_service_manager_that_is_gone_keeps_nobody_from_serving(
    repository: Path, tmp_path: Path
) -> None:
    flags = ("--model-repository", str(repository))
    with Process(*flags, environment={"NOTIFY_SOCKET": f"{tmp_path}/none"}) as process:
        process.wait_for("the service manager was not told")
        process.terminate()
        assert process.exit_code() == 0


@pytest.mark.parametrize("processes", ARRANGEMENTS)
@pytest.mark.parametrize(("place", "model"), [("net.onnx", "net"), ("a/3/model.onnx", "a")])
def test_a_single_file_is_served(tmp_path: Path, place: str, model: str, processes: str) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(models.scale(2.0).SerializeToString())
    with Process(str(file), "--processes", processes) as process:
        where = process.wait_for("listening")
        process.wait_for("ready")
        entries = [json.loads(line) for line in process.lines]
        assert [e["model"] for e in entries if e["message"] == "loading"] == [model]
        assert answered(f"127.0.0.1:{where['grpc_port']}", model) == 2.0


@pytest.mark.parametrize("processes", ARRANGEMENTS)
def test_a_folder_with_just_a_model_file_is_not_ready_and_says_what_to_do(
    tmp_path: Path, processes: str
) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(models.scale(2.0).SerializeToString())
    with Process("--model-repository", str(tmp_path), "--processes", processes) as process:
        said = process.wait_for("no model was found")
        assert said["level"] == "WARNING"
        assert said["looked_for"] == f"{tmp_path}/NAME/VERSION/model.onnx"
        assert said["cure"] == f"inferd serve {file} serves it alone"
        process.wait_for("not ready")


@pytest.mark.parametrize("processes", ARRANGEMENTS)
def test_an_empty_repository_is_ready_where_the_settings_say_so(
    tmp_path: Path, processes: str
) -> None:
    flags = ("--ready-without-models", "true", "--processes", processes)
    with ready_process(tmp_path, *flags):
        pass


def test_a_model_is_named_once(tmp_path: Path) -> None:
    result = finished(str(tmp_path), "--model-repository", str(tmp_path))
    assert result.returncode == 2
    assert "not both" in result.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--model-repository", "/none"), "model_repository: /none cannot be read"),
        (("--host", "203.0.113.7"), "host: '203.0.113.7' cannot be listened on"),
        (("--tls-certificate", "/none", "--tls-private-key", "/none"), "tls_"),
        (("--identities-file", "/none"), "identities"),
        (("--cache-redis-password-file", "/none"), "cache_redis_password_file: /none cannot"),
    ],
)
def test_an_explanation_says_in_a_sentence_what_would_not_start(
    flags: tuple[str, ...], words: str
) -> None:
    result = finished("--explain", *flags)
    assert result.returncode == 1
    assert words in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_a_variable_that_is_no_setting_is_told_at_the_start(repository: Path) -> None:
    flags = ("--model-repository", str(repository))
    with Process(*flags, environment={"INFERD_GRPC_PROT": "1"}) as process:
        said = process.wait_for("a setting has no effect")
        assert said["why"] == (
            "the variable INFERD_GRPC_PROT is no setting; did you mean INFERD_GRPC_PORT?"
        )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("serve", "--grpc-prot", "1"), ("inferd serve", "--grpc-prot; did you mean --grpc-port?")),
        (("serve", "--metrics-prt=1"), ("inferd serve", "did you mean --metrics-port?")),
        (("serve", "--grpc-p", "1"), ("inferd serve", "--grpc-p; did you mean --grpc-port?")),
        (("models", "--ulr", "a"), ("inferd models", "did you mean --url?")),
        (("models", "--xyzzy"), ("inferd models", "unrecognized argument: --xyzzy")),
    ],
)
def test_a_wrong_flag_gets_the_usage_of_its_command_and_a_suggestion(
    flags: tuple[str, ...], words: tuple[str, str]
) -> None:
    code = "from inferd_client.cli import main; raise SystemExit(main())"
    result = subprocess.run(
        [sys.executable, "-c", code, *flags],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=clean_environment(),
        check=False,
    )
    assert result.returncode == 2
    usage, error = result.stderr.splitlines()[0], result.stderr.splitlines()[-1]
    assert usage.startswith(f"usage: {words[0]} ")
    assert error.startswith(f"{words[0]}: error: ")
    assert error.endswith(words[1])


@contextmanager
def undrained(kind: str) -> Iterator[int]:
    """Give a descriptor that nobody empties, and that is full after a few lines."""
    if kind == "terminal":
        reader, writer = os.openpty()
    else:
        one, other = socket.socketpair()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        reader, writer = one.detach(), other.detach()
    try:
        yield writer
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("processes", ARRANGEMENTS)
@pytest.mark.parametrize("kind", ["terminal", "socket"])
def test_a_log_that_nobody_takes_stops_neither_answers_nor_the_end(
    repository: Path, tmp_path: Path, processes: str, kind: str
) -> None:
    target = f"unix://{tmp_path}/inferd.sock"
    flags = ("--metrics-port", "0", "--host", target, "--processes", processes)
    # Lines long enough that the first of them fill it.
    many = {f"INFERD_NO_SETTING_{number}": "1" for number in range(100)}
    environment = clean_environment() | {"INFERD_MODEL_REPOSITORY": str(repository)} | many
    with undrained(kind) as log:
        command = [sys.executable, "-m", "inferd_server", *flags]
        with subprocess.Popen(command, env=environment, stderr=log) as process:
            try:
                await_serving(target)
                assert answered(target) == 2.0
                process.terminate()
                assert process.wait(PATIENCE) == 0
            finally:
                process.kill()


def lines_until(terminal: int, word: str) -> list[str]:
    """Return what a terminal shows, line by line, up to the first line with a word."""
    shown = ""
    while word not in shown:
        assert select.select([terminal], [], [], PATIENCE)[0], shown
        shown += os.read(terminal, 65536).decode()
    return shown.splitlines()


@pytest.mark.parametrize("processes", ARRANGEMENTS)
def test_a_terminal_shows_which_model_loads_and_lines_for_people(
    repository: Path, processes: str
) -> None:
    flags = ("--grpc-port", "0", "--metrics-port", "0", "--processes", processes)
    command = [sys.executable, "-m", "inferd_server", *flags, "--verdict-store", ""]
    environment = clean_environment() | {"INFERD_MODEL_REPOSITORY": str(repository)}
    reader, writer = os.openpty()
    try:
        with subprocess.Popen(command, env=environment, stderr=writer) as process:
            try:
                lines = lines_until(reader, " INFO ready")
                assert any("loading 1 of 1: scaled" in line for line in lines)
                assert not any(line.startswith("{") for line in lines)
                process.terminate()
                lines_until(reader, " INFO stopped")
                assert process.wait(PATIENCE) == 0
            finally:
                process.kill()
    finally:
        os.close(reader)
        os.close(writer)
