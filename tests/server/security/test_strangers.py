"""Callers who may not call leave nothing behind, and are told so before they have sent much."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub

from benchmarks.peers.memory import tree
from tests.server.lifecycle.process import ready_process
from tests.server.security.named import entry, written
from tests.server.security.secured import MODEL, repository
from tests.server.serving import PATIENCE, failure, infer_request, metrics_text, rows

STRANGERS, SMALL = 1000, 2**16
GREEDY, LARGE = 25, 48 * 2**20
ROOM = 200 * 2**20
"""Bytes by which the server may grow, of the gigabyte that it is sent."""
ARRANGEMENTS = {
    "inline": ("inline",),
    "threads": ("threads",),
    "aio": ("threads", "--transport", "aio"),
    "split": ("split", "--fronts", "1"),
}
WRONG = {
    "a token that nobody has": (("authorization", "Bearer wrong"),),
    "no token": (),
    "an empty token": (("authorization", "Bearer "),),
    "no permission": (("authorization", "Bearer reader-token"),),
}


def resident(pid: int) -> int:
    """Return the bytes of memory of a process and of all its children."""
    pages = 0
    for one in tree(pid):
        pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.parametrize(
    "arrangement",
    [
        "inline",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("split", "threads", "aio")),
    ],
)
def test_a_thousand_refused_strangers_leave_memory_as_it_was(
    arrangement: str, tmp_path: Path
) -> None:
    models = repository(tmp_path / "models")
    path = written(tmp_path / "identities.yaml", entry("reader", "read"))
    flags = ("--identities-file", str(path), "--processes", *ARRANGEMENTS[arrangement])
    with ready_process(models, *flags) as (process, where):
        with grpc.insecure_channel(
            f"127.0.0.1:{where['grpc_port']}", compression=grpc.Compression.Gzip
        ) as channel:
            stub = GRPCInferenceServiceStub(channel)

            def knock(count: int, size: int) -> None:
                request = infer_request(MODEL, rows(1.0), ident="x" * size)
                for index in range(count):
                    metadata = list(WRONG.values())[index % len(WRONG)]
                    failure(lambda: stub.ModelInfer(request, timeout=PATIENCE, metadata=metadata))  # noqa: B023

            knock(len(WRONG), SMALL)
            before = resident(process.pid)
            knock(STRANGERS, SMALL)
            knock(GREEDY - GREEDY % len(WRONG), LARGE)
            assert resident(process.pid) - before < ROOM
        text = metrics_text(where["metrics_port"])
        share = STRANGERS // len(WRONG) + GREEDY // len(WRONG) + 1
        for reason in ("TOKEN_UNKNOWN", "CREDENTIALS_MISSING", "TOKEN_EMPTY", "PERMISSION_MISSING"):
            assert f'inferd_refused_calls_total{{reason="{reason}"}} {share:.1f}' in text
        line = process.wait_for("a call was refused")
        assert line["peer"].startswith("ipv4:127.0.0.1:")
        assert line["method"] == "/inference.GRPCInferenceService/ModelInfer"
        logged = [entry for entry in process.lines if "a call was refused" in entry]
        assert len(logged) < STRANGERS / 10
