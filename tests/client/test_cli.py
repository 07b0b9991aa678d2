from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import Any

import grpc
import inferd_client
import pytest
from inferd_client import cli
from inferd_client.cli import main
from inferd_client.errors import QueueFull

from tests.fakes.oip_server import OipServer

HERE = "tests.client.test_cli"


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group=cli.GROUP)


def command(outcome: BaseException | int) -> SimpleNamespace:
    def run(_: object) -> int:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return SimpleNamespace(HELP="does it", configure=lambda parser: None, run=run)


fine = command(0)
full = command(QueueFull("the queue is full,\nreally"))
interrupted = command(KeyboardInterrupt())
unreadable = command(FileNotFoundError(2, "No such file", "a.npy"))


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in ("bench", "infer", "models", "serve"):
        assert f"\n    {name} " in shown


def test_the_command_line_starts_without_grpc_and_numpy() -> None:
    code = "import sys, inferd_client.cli; sys.exit(bool({'grpc', 'numpy'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_the_package_offers_is_there() -> None:
    for name in inferd_client.__all__:
        assert getattr(inferd_client, name) is not None
    assert sorted(inferd_client.__all__) == sorted(sum(inferd_client.HOMES.values(), ()))
    code = "import inferd_client as c; print('Client' in dir(c), c.errors.NotFound)"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout == "True <class 'inferd_client.errors.NotFound'>\n"
    with pytest.raises(AttributeError, match="nonsense"):
        _ = inferd_client.nonsense


def test_what_comes_before_a_command_is_called_before_its_module_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    listed = {cli.BEFORE: [named("before", done)], cli.GROUP: [named("fine", done)]}
    monkeypatch.setattr(cli, "entry_points", lambda group, name="": listed[group])
    assert main(["fine"]) == 0
    assert done == ["before", "called", "fine"]


def named(name: str, done: list[str]) -> Any:
    """Return an entry point that notes when it is loaded."""

    def load() -> object:
        done.append(name)
        return fine if name == "fine" else lambda: done.append("called")

    return SimpleNamespace(name="fine", module="here", load=load)


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("inferd 0.")


def test_no_command_shows_the_help_and_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: inferd" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["infer"],
        ["infer", "m", "--input", "x"],
        ["infer", "m", "--shape", "x=a"],
        ["bench", "m", "--concurrency", "0"],
        ["bench", "m", "--duration", "0"],
        ["bench", "m", "--duration", "inf"],
        ["bench", "m", "--warmup", "-1"],
    ],
)
def test_wrong_usage_is_told_on_stderr(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert "usage: inferd" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "code", "line"),
    [
        ("fine", 0, ""),
        ("full", 1, "inferd full: QueueFull: the queue is full, really\n"),
        ("unreadable", 1, "inferd unreadable: [Errno 2] No such file: 'a.npy'\n"),
        ("interrupted", 130, ""),
    ],
)
def test_outcome_of_a_command_becomes_exit_code_and_one_line(
    name: str, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([name], [entry(name, f"{HERE}:{name}")]) == code
    assert capsys.readouterr().err == line


def test_command_of_a_missing_extra_says_what_to_install(
    capsys: pytest.CaptureFixture[str],
) -> None:
    entries = [entry("fly", "inferd_wings.command"), entry("fine", f"{HERE}:fine")]
    assert cli.run(["--help"], entries) == 0
    assert "inferd[wings]" in capsys.readouterr().out
    assert cli.run(["fly", "--high"], entries) == 1
    assert (
        capsys.readouterr().err
        == "inferd fly: needs inferd_wings: run pip install 'inferd[wings]' first\n"
    )


def test_only_the_command_asked_for_is_imported() -> None:
    broken = entry("broken", f"{HERE}:no_such_name")
    assert cli.run(["fine"], [broken, entry("fine", f"{HERE}:fine")]) == 0


def test_failed_call_is_one_line(server: OipServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.fail = (grpc.StatusCode.UNAVAILABLE, "going down", "ShuttingDown")
    assert main(["models", "--url", server.address]) == 1
    assert capsys.readouterr().err == "inferd models: ShuttingDown: going down\n"
