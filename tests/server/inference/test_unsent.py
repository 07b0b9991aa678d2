"""Answers that nobody takes, in the metrics of every arrangement."""

from __future__ import annotations

import time

from tests.server.inference.served import assert_still_serves, simple
from tests.server.serving import PATIENCE, Running, metrics_text
from tests.server.transport.frames import PREFACE, SETTINGS, connected, frame, request

METHOD = "/inference.GRPCInferenceService/ModelInfer"
# INITIAL_WINDOW_SIZE, RFC 9113, 6.5.2: the answers find no room at all.
CLOSED_WINDOW = PREFACE + frame(SETTINGS, payload=b"\x00\x04" + bytes(4))


def gauge(server: Running, name: str) -> float:
    lines = metrics_text(server.metrics_port).splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def await_unsent(server: Running, some: bool) -> None:
    until = time.monotonic() + PATIENCE
    while (gauge(server, "inferd_answer_bytes_unsent") > 0) != some:
        assert time.monotonic() < until


def test_an_answer_that_nobody_takes_is_shown_until_its_caller_has_gone(served: Running) -> None:
    message = simple().SerializeToString()
    with connected(f"127.0.0.1:{served.port}", CLOSED_WINDOW) as connection:
        connection.await_frame(SETTINGS)
        connection.send(request(METHOD, 1, message))
        await_unsent(served, some=True)
        assert gauge(served, "inferd_request_bytes_held") == 0
        assert_still_serves(served)
    await_unsent(served, some=False)
