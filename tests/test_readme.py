"""The README's commands and session, run as they stand there, on free ports."""

from __future__ import annotations

import doctest
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from inferd_client import Client

from tests.conformance.process import ServerProcess
from tests.ports import free_port

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DEFAULT_ADDRESS = "127.0.0.1:8001"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines() if line]


@pytest.fixture(scope="module")
def ports() -> Iterator[tuple[int, int]]:
    """Run the README's first command until it is ready, then end it by its pid."""
    number = free_port()
    metrics = free_port()
    first = shlex.split(commands()[0])
    assert first == ["make", "serve"]
    server = subprocess.Popen(
        first,
        cwd=ROOT,
        env={**environment(number), "INFERD_METRICS_PORT": str(metrics)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until_ready(server)
        yield number, metrics
        os.killpg(server.pid, signal.SIGTERM)
        _, rest = server.communicate(timeout=30)
        assert "stopped" in rest
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.communicate()


@pytest.fixture(scope="module")
def port(ports: tuple[int, int]) -> int:
    return ports[0]


def environment(port: int) -> dict[str, str]:
    # A make above this one would hand down its flags and targets.
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return {
        **plain,
        "PORT": str(port),
        "INFERD_URL": f"127.0.0.1:{port}",
        "INFERD_LOG_FORMAT": "json",
    }


def wait_until_ready(server: subprocess.Popen[str]) -> None:
    assert server.stderr is not None
    for line in server.stderr:
        if line.startswith("{") and json.loads(line)["message"] == "ready":
            return
    pytest.fail(f"make serve ended with {server.wait()}")


@pytest.mark.parametrize("command", commands()[1:])
def test_a_command_of_the_readme_succeeds(command: str, port: int) -> None:
    done = subprocess.run(
        shlex.split(command),
        cwd=ROOT,
        env=environment(port),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_predictions_of_make_predict_are_accurate_on_both_paths(port: int) -> None:
    done = subprocess.run(
        ["make", "predict"],
        cwd=ROOT,
        env=environment(port),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    accuracies = [float(number) for number in re.findall(r"accuracy\D*(0\.\d+|1\.0+)", done.stdout)]
    assert len(accuracies) >= 2, done.stdout
    assert min(accuracies) >= 0.97


def test_the_metrics_show_batches_of_more_than_one_row(ports: tuple[int, int]) -> None:
    port, metrics = ports
    subprocess.run(["make", "predict"], cwd=ROOT, env=environment(port), timeout=60, check=True)
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    series = 'model="digits",version="1"'
    alone = re.search(rf'inferd_batch_rows_bucket{{le="1.0",{series}}} (\S+)', text)
    batches = re.search(rf"inferd_batch_rows_count{{{series}}} (\S+)", text)
    assert alone
    assert batches
    assert float(alone[1]) < float(batches[1])


def test_the_session_of_the_readme_prints_what_it_says(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    text = "".join(blocks("pycon")).replace(DEFAULT_ADDRESS, f"127.0.0.1:{port}")
    session = doctest.DocTestParser().get_doctest(text, {}, "README", "README.md", 0)
    assert session.examples
    result = doctest.DocTestRunner().run(session)
    assert result.failed == 0


def test_the_model_of_the_readme_is_served_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (make,) = blocks("python")
    ((call, expected),) = re.findall(r"`(Client\(.*)` is `(.*)`", README)
    monkeypatch.chdir(tmp_path)
    exec(make, {})
    server = ServerProcess(tmp_path / "models")
    try:
        port = server.wait_for("listening")["grpc_port"]
        server.wait_for("ready")
        answer = eval(call.replace(DEFAULT_ADDRESS, f"127.0.0.1:{port}"), {"Client": Client})
    finally:
        code = server.stop()
    assert (answer.tolist(), code) == (json.loads(expected), 0)


def test_the_command_is_a_module_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "inferd", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("inferd ")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_the_readme_installs_with_pip_serves_in_an_empty_environment(tmp_path: Path) -> None:
    lines = blocks("console")[0].splitlines()
    install, serve = (line.removeprefix("$ ") for line in lines)
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    assert install == "pip install '.[server]'"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, f"{ROOT}[server]"], check=True, timeout=600)
    shutil.copytree(ROOT / "server/inferd_server/shipped_models", tmp_path / "models")
    arguments = shlex.split(serve)[1:]
    assert arguments[:3] == ["-m", "inferd", "serve"]
    server = ServerProcess(tmp_path / "models", program=(str(python), *arguments[:3]))
    try:
        server.wait_for("listening")
        ready = server.wait_for("ready")
    finally:
        code = server.stop()
    assert (ready["message"], code) == ("ready", 0)


def test_the_readme_is_short_and_links_to_files_that_exist() -> None:
    assert len(README.splitlines()) <= 100
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_architecture_fits_its_length_and_names_files_that_exist() -> None:
    lines = (ROOT / "ARCHITECTURE.md").read_text().splitlines()
    assert 80 <= len(lines) <= 150
    server = ROOT / "server/inferd_server"
    for name in re.findall(
        r"`((?:front|transport|scheduler|worker|repository)/\w+\.py)`", "\n".join(lines)
    ):
        assert (server / name).exists(), name


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert "`make test`" in README
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("make test")
