"""Load reports: what balancers are told, with answers and out of band."""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import hpack
import pytest
from google.protobuf.duration_pb2 import Duration
from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd.orca.v3.load_report_pb2 import OrcaLoadReport
from inferd.orca.v3.service_pb2 import OrcaLoadReportRequest
from inferd.orca.v3.service_pb2_grpc import OpenRcaServiceStub
from inferd_server.batching.inline import InlineLoop
from inferd_server.errors import InvalidInput, ShuttingDown
from inferd_server.monitoring.busy import WINDOW_S
from inferd_server.rpc.load_reports import LoadReports, ServerLoad

from tests import models
from tests.fakes.call import FakeStream
from tests.fakes.clock import FakeClock
from tests.server.serving import (
    PATIENCE,
    Running,
    infer_request,
    rows,
    running,
    running_split,
)
from tests.server.transport.frames import HEADERS, connected
from tests.server.transport.frames import request as call_frames

Serve = Callable[..., AbstractContextManager[Running]]
INFER = "/inference.GRPCInferenceService/ModelInfer"
KEY = "endpoint-load-metrics-bin"


def inline(folder: Path, **settings: object) -> AbstractContextManager[Running]:
    return running(folder, inline=InlineLoop(time.monotonic), **settings)


class Balanced:
    """A load that a test sets, and who asks for reports of it."""

    def __init__(self) -> None:
        self.clock = FakeClock(50.0)
        self.load = ServerLoad(0.0, 100, 10, {})
        self.reports = LoadReports(lambda: self.load, self.clock)
        # Only the test looks.
        self.reports.stop()

    def ask(self, seconds: float) -> FakeStream:
        stream = FakeStream()
        watch = self.reports.watch(stream)
        whole = int(seconds)
        interval = Duration(seconds=whole, nanos=round((seconds - whole) * 1e9))
        watch.message(asked(interval))
        return stream

    def second(self, load: ServerLoad) -> None:
        self.clock.advance(1.0)
        self.load = load
        self.reports.look()


def asked(interval: Duration) -> bytes:
    return OrcaLoadReportRequest(
        report_interval={"seconds": interval.seconds, "nanos": interval.nanos}
    ).SerializeToString()


def busy(stream: FakeStream) -> Sequence[float]:
    return [OrcaLoadReport.FromString(one).application_utilization for one in stream.sent]


def test_reports_come_at_once_and_then_in_the_interval_that_was_asked_for() -> None:
    balanced = Balanced()
    often, seldom = balanced.ask(0.001), balanced.ask(2.0)
    for number in range(1, 6):
        balanced.second(ServerLoad(number / 10, 100, 10, {}))
    assert busy(often) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert busy(seldom) == [0.0, 0.2, 0.4]


def test_a_report_tells_rates_and_what_waits() -> None:
    balanced = Balanced()
    assert OrcaLoadReport.FromString(balanced.reports.latest()) == OrcaLoadReport()
    balanced.second(ServerLoad(0.75, 130, 14, {"inferd_waiting_rows": 5.0}))
    assert OrcaLoadReport.FromString(balanced.reports.latest()) == OrcaLoadReport(
        application_utilization=0.75,
        rps_fractional=30.0,
        eps=4.0,
        named_metrics={"inferd_waiting_rows": 5.0},
    )


def test_the_rates_are_of_as_long_a_time_as_how_busy_the_server_is() -> None:
    balanced = Balanced()
    balanced.reports.latest()
    balanced.second(ServerLoad(0.5, 200, 10, {}))
    for _ in range(int(WINDOW_S) - 1):
        balanced.second(balanced.load)
    assert OrcaLoadReport.FromString(balanced.reports.latest()).rps_fractional == 10.0
    balanced.second(balanced.load)
    assert OrcaLoadReport.FromString(balanced.reports.latest()).rps_fractional == 0.0


def test_who_asks_twice_or_not_at_all_or_goes_gets_no_more() -> None:
    balanced = Balanced()
    for act, error in (
        (lambda watch: watch.message(asked(Duration())), InvalidInput),
        (lambda watch: watch.drain(), ShuttingDown),
        (lambda watch: watch.cancel(), None),
    ):
        stream = FakeStream()
        watch = balanced.reports.watch(stream)
        watch.message(asked(Duration()))
        act(watch)
        balanced.second(balanced.load)
        assert [type(one) for one in stream.errors] == ([] if error is None else [error])
        assert len(stream.sent) == 1
    silent = FakeStream()
    balanced.reports.watch(silent).half_closed()
    assert [type(one) for one in silent.errors] == [InvalidInput]


def trailers(server: Running, request: ModelInferRequest) -> dict[str, str]:
    """Return the trailers of an answer; gRPC's own client keeps load reports to itself."""
    decoder = hpack.Decoder()
    with connected(f"127.0.0.1:{server.port}") as connection:
        connection.send(call_frames(INFER, 1, request.SerializeToString()))
        found: dict[str, str] = {}
        for frame in connection.frames():
            if frame.kind == HEADERS:
                found |= dict(decoder.decode(frame.payload))
            if frame.kind == HEADERS and "grpc-status" in found:
                assert found["grpc-status"] == "0"
                return found
    raise AssertionError("the call has no end")


def reported(server: Running, request: ModelInferRequest) -> OrcaLoadReport:
    """Return the load report of an answer."""
    text = trailers(server, request)[KEY]
    return OrcaLoadReport.FromString(b64decode(f"{text}=="))


@pytest.mark.parametrize("serve", [running, inline, running_split])
def test_every_answer_tells_the_load_where_that_is_asked_for(serve: Serve, tmp_path: Path) -> None:
    models.repository(tmp_path, {"m": models.scale(2.0)})
    request = infer_request("m", rows(1.0))
    with serve(tmp_path, load_reports="true") as server:
        stub = OpenRcaServiceStub(server.channel)
        apart = stub.StreamCoreMetrics(OrcaLoadReportRequest(), timeout=PATIENCE)
        assert next(apart).application_utilization >= 0.0
        report, end = OrcaLoadReport(), time.monotonic() + PATIENCE
        while not report.application_utilization:
            assert time.monotonic() < end
            report = reported(server, request)
        assert 0.0 < report.application_utilization <= 1.0
        assert report.rps_fractional > 0.0
        assert next(apart).rps_fractional > 0.0
        apart.cancel()


def test_answers_tell_no_load_unless_it_is_asked_for(tmp_path: Path) -> None:
    models.repository(tmp_path, {"m": models.scale(2.0)})
    with running(tmp_path) as server:
        assert KEY not in trailers(server, infer_request("m", rows(1.0)))
