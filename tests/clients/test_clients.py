"""gRPC's own libraries in four languages call the server: what each call gives is the same."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub

from tests.conformance.process import ServerProcess
from tests.server.serving import infer_request

from .conftest import ARRANGEMENTS, listening
from .programs import Program

PATIENCE = 90.0
ALL = ["cpp", "go", "java", "node"]
LANGUAGES = [
    *(pytest.param(name, marks=pytest.mark.clients) for name in ALL[:3]),
    "node",
]
MANY, UNKNOWN = 50, 7
SUMS = list(range(2, 18))
ANSWERED = {"code": "OK", "id": "one", "sums": SUMS}
Build = Callable[[str], Program]

each_language = pytest.mark.parametrize("language", LANGUAGES)
pytestmark = pytest.mark.timeout(600)


def started(program: Program, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*program.command, *map(str, arguments)],
        env={**os.environ, **program.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(client: subprocess.Popen[str]) -> Any:
    """Return what a client printed last; it must end well."""
    try:
        out, said = client.communicate(timeout=PATIENCE)
    finally:
        client.kill()
    assert client.returncode == 0, said
    return json.loads(out.splitlines()[-1])


@each_language
@pytest.mark.parametrize("subject", ["unary", "compression"])
def test_a_call_is_answered(address: str, program: Build, language: str, subject: str) -> None:
    assert result(started(program(language), address, subject)) == ANSWERED


@pytest.mark.clients
@pytest.mark.parametrize("language", ALL)
def test_a_call_over_tls_is_answered(
    secured: tuple[str, Path], program: Build, language: str
) -> None:
    address, authority = secured
    assert result(started(program(language), address, "tls", authority)) == ANSWERED


@each_language
def test_an_error_has_its_code_its_reason_and_its_kind(
    address: str, program: Build, language: str
) -> None:
    found = result(started(program(language), address, "refused"))
    assert (found["code"], found["kind"]) == ("NOT_FOUND", "ModelNotFound")
    assert "model 'absent' is not known" in found["details"]


@each_language
def test_a_stream_answers_each_request_in_order_and_ends_well(
    address: str, program: Build, language: str
) -> None:
    good = [index for index in range(MANY) if index != UNKNOWN]
    assert result(started(program(language), address, "stream")) == {
        "code": "OK",
        "answered": [str(index) for index in good],
        "sums": [index + 1 for index in good],
        "failed": [str(UNKNOWN)],
    }


@each_language
def test_a_deadline_ends_its_call_alone(address: str, program: Build, language: str) -> None:
    # The run of somebody before may go on: it is over when the next one is.
    ask_slowly(address)
    found = result(started(program(language), address, "deadline"))
    assert found == {"code": "DEADLINE_EXCEEDED", "then": "OK"}


def ask_slowly(address: str) -> None:
    row = np.ones((1, 16), np.int32)
    with grpc.insecure_channel(address) as channel:
        request = infer_request("slow", {"INPUT0": row, "INPUT1": row})
        GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=PATIENCE)


@each_language
def test_cancelling_ends_a_call_and_a_stream_alone(
    address: str, program: Build, language: str
) -> None:
    found = result(started(program(language), address, "cancel"))
    assert found == {"code": "CANCELLED", "stream": "CANCELLED", "then": "OK"}


@each_language
def test_five_megabytes_come_back(address: str, program: Build, language: str) -> None:
    assert result(started(program(language), address, "large")) == {"code": "OK", "equal": True}


@each_language
def test_who_watches_a_model_hears_of_every_change(
    address: str, program: Build, language: str
) -> None:
    found = result(started(program(language), address, "health"))
    assert found == {"states": ["SERVING", "NOT_SERVING", "SERVING"]}


@pytest.fixture(scope="module")
def silent(address: str, program: Build) -> Iterator[Mapping[str, subprocess.Popen[str]]]:
    """A client of each language that can be built, whose streams are silent at the same time."""
    clients: dict[str, subprocess.Popen[str]] = {}
    for language in ALL:
        with suppress(pytest.skip.Exception):
            clients[language] = started(program(language), address, "keepalive")
    yield clients
    for client in clients.values():
        client.kill()
        client.communicate()


@pytest.mark.clients
@pytest.mark.parametrize("language", ALL)
def test_a_silent_stream_lives_with_pings_every_ten_seconds(
    silent: Mapping[str, subprocess.Popen[str]], program: Build, language: str
) -> None:
    # Skips with the reason where it could not be built.
    program(language)
    assert result(silent[language]) == {"code": "OK", "answers": 2}


@pytest.mark.clients
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@pytest.mark.parametrize("language", ALL)
def test_a_channel_outlives_a_restart(
    repository: Path, program: Build, language: str, arrangement: str, free_port: int
) -> None:
    flags = ("--processes", arrangement, "--grpc-port", str(free_port))
    server = ServerProcess(repository, *flags)
    try:
        client = started(program(language), listening(server), "restart")
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stdout.readline() == "before\n"
        assert server.stop() == 0
        client.stdin.write("\n")
        client.stdin.flush()
        assert client.stdout.readline() == "away\n"
        server = ServerProcess(repository, *flags)
        listening(server)
        found = result_after(client)
    finally:
        code = server.stop()
    assert found == {"before": "OK", "away": "UNAVAILABLE", "after": "OK"}
    assert code == 0


def result_after(client: subprocess.Popen[str]) -> Any:
    """Let a client go on, and return what it printed last."""
    assert client.stdin is not None
    client.stdin.write("\n")
    client.stdin.flush()
    return result(client)
