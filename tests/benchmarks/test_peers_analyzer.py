"""What `perf_analyzer` is asked, and what its report says."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers.analyzer import Analyzer, Figures, arguments, parse, write_input
from benchmarks.peers.loads import LOADS, Load
from benchmarks.peers.models import DIGITS, MEAN, RESNET50, Model

# A report of perf_analyzer 2.48.
HEADER = (
    "Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,"
    "Server Compute Input,Server Compute Infer,Server Compute Output,Client Recv,"
    "p50 latency,p90 latency,p95 latency,p99 latency"
)
ROW = "32,3576.88,4,3079,908,314,2279,1008,1,6970,11590,13073,16901"


def flags(load: Load) -> list[str]:
    return arguments("127.0.0.1:1", DIGITS, load, 700, Path("input.json"))


def program(folder: Path, script: str, patience_s: float = 60.0) -> Analyzer:
    """Put a stand-in for perf_analyzer where it is looked for."""
    path = folder / "bin/perf_analyzer"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return Analyzer(folder, patience_s)


def test_a_report_gives_requests_per_second_and_milliseconds() -> None:
    assert parse(f"{HEADER}\n{ROW}\n") == Figures(3576.88, 6.97, 16.901)


def test_a_report_of_a_peer_without_statistics_is_read_by_its_column_names() -> None:
    header = "Concurrency,Inferences/Second,Client Send,Client Recv,p50 latency,p99 latency"
    assert parse(f"{header}\n1,892.5,3,1,980,1340\n") == Figures(892.5, 0.98, 1.34)


@pytest.mark.parametrize("rows", [[], [ROW, ROW]])
def test_a_report_of_other_than_one_load_is_refused(rows: list[str]) -> None:
    with pytest.raises(RuntimeError, match="one row"):
        parse("\n".join([HEADER, *rows]))


def test_a_report_without_a_successful_request_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no request succeeded"):
        parse(f"{HEADER}\n32,0,0,0,0,0,0,0,0,0,0,0,0\n")


def test_every_load_is_unary_and_asynchronous_with_its_number_of_callers() -> None:
    asked = flags(LOADS["digits-32"])
    assert asked[asked.index("--concurrency-range") + 1] == "32"
    assert asked[asked.index("-p") + 1] == "700"
    assert "--async" in asked
    assert "--streaming" not in asked
    assert "--shared-memory" not in asked


def test_a_stream_and_shared_memory_are_asked_for_where_the_load_says_so() -> None:
    assert "--streaming" in flags(LOADS["digits-stream-32"])
    asked = flags(LOADS["mean-shm-32"])
    assert asked[asked.index("--shared-memory") + 1] == "system"


@pytest.mark.parametrize("model", [DIGITS, RESNET50], ids=["digits", "a name with a slash"])
def test_the_input_file_carries_one_row_of_finite_values(model: Model, tmp_path: Path) -> None:
    found = json.loads(write_input(tmp_path, model).read_text())["data"]
    assert len(found) == 1
    tensor = found[0][model.input]
    values = np.frombuffer(b64decode(tensor["b64"]), dtype=np.float32)
    assert tensor["shape"] == list(model.input_shape)
    assert values.size == np.prod(model.input_shape)
    assert np.isfinite(values).all()


def test_a_missing_libb64_is_said_in_one_sentence_with_its_package(tmp_path: Path) -> None:
    analyzer = program(tmp_path, 'echo "error while loading libb64.so.0d" >&2; exit 127')
    with pytest.raises(RuntimeError, match=r"^perf_analyzer needs .*apt-get install libb64-0d$"):
        analyzer.check()


def test_another_reason_not_to_start_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="libcudart"):
        program(tmp_path, "echo libcudart.so.12 >&2; exit 127").check()


def test_what_the_program_says_of_a_failed_request_is_raised(tmp_path: Path) -> None:
    analyzer = program(tmp_path, 'echo "Request failed: UNAVAILABLE"; exit 99')
    with pytest.raises(RuntimeError, match=r"mean-32: Request failed: UNAVAILABLE"):
        analyzer.measure("127.0.0.1:1", MEAN, LOADS["mean-32"], 1.0)


def test_a_run_that_leaves_no_report_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="digits-1"):
        program(tmp_path, "exit 0").measure("127.0.0.1:1", DIGITS, LOADS["digits-1"], 1.0)


def test_a_run_that_hangs_is_ended_and_said(tmp_path: Path) -> None:
    hanging = program(tmp_path, "exec sleep 600", patience_s=0.1)
    with pytest.raises(RuntimeError, match="digits-1: perf_analyzer did not end within"):
        hanging.measure("127.0.0.1:1", DIGITS, LOADS["digits-1"], 0.01)
