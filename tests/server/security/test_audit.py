"""Calls that change the server are logged: who called, what for, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inferd.oip.v2 import inference_pb2 as oip

from tests.server.lifecycle.process import Process, ready_process
from tests.server.security.named import entry, written
from tests.server.security.secured import MODEL, Caller, calling, repository
from tests.server.serving import failure

ARRANGEMENTS = {
    "threads": ("threads",),
    "aio": ("threads", "--transport", "aio"),
    "split": ("split", "--fronts", "1"),
}


@pytest.fixture(params=ARRANGEMENTS)
def arranged(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return ("--processes", *ARRANGEMENTS[request.param])


def unload(caller: Caller) -> object:
    request = oip.RepositoryModelUnloadRequest(model_name="nope")
    return failure(lambda: caller.stub.RepositoryModelUnload(request, **caller.options))


def change_logs(caller: Caller) -> object:
    request = oip.LogSettingsRequest()
    request.settings["log_info"].bool_param = True
    return caller.stub.LogSettings(request, **caller.options)


def trace(caller: Caller) -> object:
    request = oip.TraceSettingRequest()
    request.settings["nope"].value.append("1")
    return failure(lambda: caller.stub.TraceSetting(request, **caller.options))


def register(caller: Caller) -> object:
    request = oip.SystemSharedMemoryRegisterRequest(name="r", key="/no-such", byte_size=4)
    return failure(lambda: caller.stub.SystemSharedMemoryRegister(request, **caller.options))


CALLS: list[tuple[Callable[[Caller], object], dict[str, str]]] = [
    (Caller.load, {"method": "RepositoryModelLoad", "target": MODEL, "outcome": "OK"}),
    (unload, {"method": "RepositoryModelUnload", "target": "nope", "outcome": "NOT_FOUND"}),
    (change_logs, {"method": "LogSettings", "target": "log_info", "outcome": "OK"}),
    (trace, {"method": "TraceSetting", "target": "nope", "outcome": "INVALID_ARGUMENT"}),
    (
        register,
        {"method": "SystemSharedMemoryRegister", "target": "r", "outcome": "INVALID_ARGUMENT"},
    ),
    (
        Caller.regions,
        {"method": "SystemSharedMemoryStatus", "outcome": "OK"},
    ),
]


def audited(process: Process) -> list[dict[str, Any]]:
    """Make every call, and return the lines about them."""
    return [process.wait_for("admin call") for _ in CALLS]


def test_admin_calls_of_identities_are_logged_with_target_caller_and_outcome(
    arranged: tuple[str, ...], tmp_path: Path
) -> None:
    path = written(tmp_path / "identities.yaml", entry("boss", "admin"))
    models = repository(tmp_path / "models")
    with ready_process(models, *arranged, "--identities-file", str(path)) as (process, where):
        with calling(where["grpc_port"], token="boss-token") as caller:
            for call, _ in CALLS:
                call(caller)
        for line, (_, expected) in zip(audited(process), CALLS, strict=True):
            assert line.items() >= {**expected, "identity": "boss"}.items()
            assert line["peer"].startswith("ipv4:127.0.0.1:")


def test_admin_calls_of_anybody_are_logged_with_their_address(
    arranged: tuple[str, ...], tmp_path: Path
) -> None:
    with ready_process(repository(tmp_path / "models"), *arranged) as (process, where):
        with calling(where["grpc_port"]) as caller:
            for call, _ in CALLS:
                call(caller)
        for line, (_, expected) in zip(audited(process), CALLS, strict=True):
            assert line.items() >= expected.items()
            assert line["peer"].startswith("ipv4:127.0.0.1:")


def test_a_wrong_token_on_an_admin_call_is_logged_and_changes_nothing(
    arranged: tuple[str, ...], tmp_path: Path
) -> None:
    path = written(tmp_path / "identities.yaml", entry("boss", "admin"))
    models = repository(tmp_path / "models")
    with ready_process(models, *arranged, "--identities-file", str(path)) as (process, where):
        with calling(where["grpc_port"], token="wrong") as caller:
            failure(caller.load)
        line = process.wait_for("a call was refused")
        assert line["reason"] == "TOKEN_UNKNOWN"
        assert line["method"].endswith("RepositoryModelLoad")
        assert not [text for text in process.lines if json.loads(text)["message"] == "admin call"]
