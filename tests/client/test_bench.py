from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from inferd.oip.v2 import inference_pb2 as pb
from inferd_client.cli import main

from tests.fakes.oip_server import OipServer


@pytest.fixture
def digits(server: OipServer) -> OipServer:
    """Return the server with the metadata of a model that it echoes."""
    server.answers["ModelMetadata"] = pb.ModelMetadataResponse(
        name="digits", inputs=[{"name": "image", "datatype": "FP32", "shape": [-1, 4]}]
    )
    return server


def test_bench_prints_figures_and_writes_json(
    digits: OipServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "figures.json"
    flags = ["--requests", "20", "--batch", "3", "--json", str(written)]
    assert main(["bench", "digits", "--url", digits.address, *flags]) == 0
    assert "20 of 20 succeeded" in capsys.readouterr().out
    figures = json.loads(written.read_text())
    assert (figures["succeeded"], figures["rows"], figures["concurrency"]) == (20, 3, 8)
    assert figures["rows_per_s"] == pytest.approx(3 * figures["requests_per_s"])
    assert list(digits.seen.inputs[0].shape) == [3, 4]


def test_bench_prints_json_alone_when_asked(
    digits: OipServer, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--requests", "4", "--stream", "--input", "image=[[1, 2, 3, 4]]", "--json", "-"]
    assert main(["bench", "digits", "--url", digits.address, *flags]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["stream"], figures["errors"], figures["rows"]) == (True, {}, 1)


def test_bench_leaves_out_what_may_be_left_out_unless_it_is_named(digits: OipServer) -> None:
    limit = {"name": "limit", "datatype": "FP32", "shape": []}
    digits.answers["ModelMetadata"].inputs.add(**limit)
    config = pb.ModelConfigResponse()
    config.config.input.add(name="limit", data_type="TYPE_FP32", optional=True)
    digits.answers["ModelConfig"] = config
    flags = ["bench", "digits", "--url", digits.address, "--requests", "2"]
    assert main(flags) == 0
    assert [tensor.name for tensor in digits.seen.inputs] == ["image"]
    assert main([*flags, "--input", "limit=0.5"]) == 0
    assert {tensor.name for tensor in digits.seen.inputs} == {"image", "limit"}


def test_bench_shares_the_load_among_processes(
    digits: OipServer, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--requests", "6", "--processes", "2", "--json", "-"]
    assert main(["bench", "digits", "--url", digits.address, *flags]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["succeeded"], figures["processes"]) == (6, 2)


def test_processes_of_a_bench_that_is_killed_end_with_it(digits: OipServer) -> None:
    digits.infer = digits.hold
    command = [sys.executable, "-m", "inferd_client", "bench", "digits", "--url", digits.address]
    command += ["--processes", "2", "--concurrency", "2", "--duration", "600"]
    parent = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        assert digits.held.wait(60)
        listed = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        children = [os.pidfd_open(int(pid)) for pid in listed]
    finally:
        parent.kill()
        parent.wait()
    assert len(children) >= 2
    for child in children:
        ended, _, _ = select.select([child], [], [], 60)
        assert ended
        os.close(child)


def test_bench_fails_when_nothing_succeeds(
    digits: OipServer, capsys: pytest.CaptureFixture[str]
) -> None:
    digits.fail_infer = (grpc.StatusCode.INTERNAL, "the engine failed", "EngineFailure")
    assert main(["bench", "digits", "--url", digits.address, "--requests", "1"]) == 1
    assert "1 failed with INTERNAL" in capsys.readouterr().out


def test_bench_refuses_more_processes_than_places(
    digits: OipServer, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--concurrency", "1", "--processes", "2"]
    assert main(["bench", "digits", "--url", digits.address, *flags]) == 1
    assert "cannot be shared among 2 processes" in capsys.readouterr().err


@pytest.mark.parametrize("client", ["fast", "grpc"])
def test_report_names_the_client_that_sent(
    digits: OipServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], client: str
) -> None:
    written = tmp_path / "figures.json"
    flags = ["--requests", "4", "--client", client, "--json", str(written)]
    assert main(["bench", "digits", "--url", digits.address, *flags]) == 0
    assert f"sent by the {client} client\n" in capsys.readouterr().out
    figures = json.loads(written.read_text())
    assert (figures["client"], figures["client_reason"]) == (client, "")


def test_report_says_why_the_fast_client_did_not_send(
    digits: OipServer, capsys: pytest.CaptureFixture[str]
) -> None:
    target = f"ipv4:{digits.address}"
    assert main(["bench", "digits", "--url", target, "--requests", "4"]) == 0
    assert f"sent by the grpc client: {target!r} is not HOST:PORT" in capsys.readouterr().out


def test_bench_counts_answers_unlike_the_first_and_fails(
    digits: OipServer, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = iter(["1", "2", "1", "1"])
    digits.infer = lambda request: pb.ModelInferResponse(model_version=next(texts))
    flags = ["--requests", "4", "--concurrency", "1", "--check"]
    assert main(["bench", "digits", "--url", digits.address, *flags]) == 1
    assert "1 answers differ from the first" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--client", "grpc", "--check"], "--check needs the fast client"),
        (["--per-stream", "2"], "--per-stream needs --stream"),
    ],
)
def test_bench_refuses_what_the_client_cannot_do(
    digits: OipServer, capsys: pytest.CaptureFixture[str], flags: list[str], text: str
) -> None:
    assert main(["bench", "digits", "--url", digits.address, "--requests", "1", *flags]) == 1
    assert text in capsys.readouterr().err
