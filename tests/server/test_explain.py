"""The explanation is a function of facts; the command prints that of its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from inferd_server.environment import WANTED
from inferd_server.explain import HostFacts, Setting, aligned, explain
from inferd_server.settings.sources import fields, origins, shown

from tests.server.lifecycle.process import SOURCES

FACTS = HostFacts(
    settings=[
        Setting("host", "::", "the environment"),
        Setting("grpc_port", "8001", "default"),
    ],
    environment={"A": "1", "B": "mine"},
    wanted={"A": "1", "B": "2", "C": "3"},
    transport="completion_queue",
    reason="",
    asked="auto",
    grpcio="1.2.3",
    problems=[],
    arrangement="one process",
    arrangement_reason="2 cores, and no GPU",
    cores=2,
    affinity=2,
)


def test_columns_are_as_wide_as_their_widest_text_and_lines_end_where_texts_do() -> None:
    assert aligned([("a", "bb", "c"), ("aaa", "b", "")]) == ["  a    bb  c", "  aaa  b"]
    assert aligned([]) == []


def test_settings_stand_with_value_and_origin() -> None:
    lines = explain(FACTS)
    assert lines[:3] == [
        "Settings",
        "  host       ::    the environment",
        "  grpc_port  8001  default",
    ]


def test_who_set_a_variable_is_said() -> None:
    lines = explain(FACTS)
    assert "  A  1        set by inferd" in lines
    assert "  B  mine     set by the operator; inferd would set 2" in lines
    assert "  C  (unset)  set by the operator; inferd would set 3" in lines


def test_what_has_no_effect_stands_beside_the_environment() -> None:
    lines = explain(replace(FACTS, problems=["it costs a third"]))
    assert "  ! it costs a third" in lines


def test_the_transport_stands_with_its_reason() -> None:
    assert "  completion_queue  the self-test with grpcio 1.2.3 passed" in explain(FACTS)
    asked = replace(FACTS, transport="aio", asked="aio")
    assert "  aio  asked for" in explain(asked)
    fallen_back = replace(FACTS, transport="aio", reason="grpcio lacks a thing")
    line = "  aio  instead of the one asked for (auto): grpcio lacks a thing"
    assert line in explain(fallen_back)


def test_the_processes_stand_with_their_reason() -> None:
    assert "  one process  2 cores, and no GPU" in explain(FACTS)


def test_cores_stand_with_what_limits_them() -> None:
    assert explain(FACTS)[-1] == "  2  that the scheduler allows this process"
    limited = explain(replace(FACTS, cores=1))
    assert limited[-1] == "  1  the container's CPU limit; the scheduler would allow 2"


def test_the_strongest_source_of_a_setting_is_its_origin(tmp_path: Path) -> None:
    path = tmp_path / "inferd.yaml"
    path.write_text("{grpc_port: 1, metrics_port: 1, engine_threads: 1}")
    flags = {"config": str(path), "grpc_port": "3", "host": None, "explain": True}
    found = origins(flags, {"INFERD_GRPC_PORT": "2", "INFERD_METRICS_PORT": "2"})
    assert found["grpc_port"] == "the command line"
    assert found["metrics_port"] == "the environment"
    assert found["engine_threads"] == f"the settings file {path}"
    assert found["host"] == "default"
    assert found.keys() == fields().keys()


def test_values_are_shown_as_they_are_written() -> None:
    assert [shown(value) for value in (True, 1.5, (), ("A", "B"), Path("/m"))] == [
        *("true", "1.5", "none", "A,B", "/m")
    ]


def explained(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in WANTED}
    return subprocess.run(
        [sys.executable, "-m", "inferd_server", "--explain", *flags],
        env={**inherited, "PYTHONPATH": SOURCES, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_command_explains_itself_and_does_not_serve() -> None:
    result = explained("--grpc-port", "1", MALLOC_TOP_PAD_="0", INFERD_METRICS_PORT="2")
    assert (result.returncode, result.stderr) == (0, "")
    words = [line.split() for line in result.stdout.splitlines()]
    assert ["grpc_port", "1", "the", "command", "line"] in words
    assert ["metrics_port", "2", "the", "environment"] in words
    assert set(fields()) <= {line[0] for line in words if line}
    assert "MALLOC_TOP_PAD_         0                       set by the operator" in result.stdout
    assert "completion_queue  the self-test" in result.stdout


def test_wrong_settings_are_the_same_error_as_when_serving() -> None:
    result = explained("--grpc-port", "no")
    assert result.returncode == 2
    assert result.stdout == ""
    assert "the command line: grpc_port" in result.stderr
