"""Thousands of calls at once on one connection: our bounds decide, and all of them count."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from inferd_server.batching.inline import InlineLoop

from tests.server.inference.held import held_rows, occupy
from tests.server.serving import PATIENCE, infer_request, metrics_text, rows, running_fake
from tests.server.transport.frames import connected, request

INFER = "/inference.GRPCInferenceService/ModelInfer"
CALLS, ROOM = 3000, 100


def counted(port: int) -> dict[str, int]:
    """Return how many requests of the model ended with each status."""
    found = re.findall(
        r'inferd_requests_total\{code="(\w+)",model="fake".*?\} (\S+)', metrics_text(port)
    )
    return {code: int(float(number)) for code, number in found}


@pytest.mark.parametrize("transport", ["aio", "completion_queue"])
def test_what_finds_no_room_is_refused_with_a_sentence_and_counted(
    tmp_path: Path, transport: str
) -> None:
    inline = InlineLoop(time.monotonic) if transport == "completion_queue" else None
    bounds = {"max_queue_rows": ROOM, "processes": "threads"}
    with (
        running_fake(tmp_path, inline=inline, **bounds) as (server, engine),
        connected(f"127.0.0.1:{server.port}") as connection,
    ):
        first = occupy(server, engine)
        data = infer_request("fake", rows(1.0)).SerializeToString()
        connection.send(b"".join(request(INFER, 2 * n + 1, data) for n in range(CALLS)))
        refused = CALLS - (ROOM - 1)
        until = time.monotonic() + PATIENCE
        while (now := counted(server.metrics_port)).get("RESOURCE_EXHAUSTED", 0) < refused:
            assert time.monotonic() < until, now
        assert held_rows(server) == ROOM
        error = server.refused(infer_request("fake", rows(1.0)))
        assert error.code().name == "RESOURCE_EXHAUSTED"
        assert "max_queue_rows" in error.details()
        engine.release()
        first.result(PATIENCE)
        while (now := counted(server.metrics_port)).get("OK", 0) < ROOM:
            assert time.monotonic() < until, now
        assert now == {"OK": ROOM, "RESOURCE_EXHAUSTED": refused + 1}
