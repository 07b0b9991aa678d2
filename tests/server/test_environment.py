"""What must stand in the environment before gRPC loads is there; what was set stays."""

from __future__ import annotations

from pathlib import Path

from inferd_server.environment import WANTED, lacking

from tests.server.lifecycle.process import ready_process


def test_everything_is_lacking_from_an_empty_environment() -> None:
    assert lacking({}) == dict(WANTED)


def test_what_the_operator_set_stays_even_when_it_is_empty() -> None:
    assert "GRPC_EXPERIMENTS" not in lacking({"GRPC_EXPERIMENTS": ""})
    assert lacking(WANTED) == {}


def test_a_server_runs_with_it_under_the_process_id_that_was_started(tmp_path: Path) -> None:
    with ready_process(tmp_path, "--ready-without-models", "true") as (process, _):
        pairs = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
        environment = dict(pair.decode().split("=", 1) for pair in pairs if b"=" in pair)
        process.terminate()
        assert process.exit_code() == 0
    assert WANTED.items() <= environment.items()
