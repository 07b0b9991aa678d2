"""Metrics as Prometheus reads them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from inferd_server.errors import AddressInUse
from inferd_server.monitoring.metrics import Metrics, MetricsServer
from inferd_server.monitoring.phases import Execution, Phases
from inferd_server.monitoring.statistics import Statistics
from prometheus_client.parser import text_string_to_metric_families

from tests.server.serving import infer_request, metrics_text, rows, running_fake

RUN = Execution(rows=4, waited=8.0, gather=0.25, compute=0.5)
M1 = {"model": "m", "version": "1"}
UNKNOWN = {"model": "", "version": ""}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def server(metrics: Metrics) -> Iterator[MetricsServer]:
    made = MetricsServer(metrics)
    yield made
    made.stop()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def engines(metrics: Metrics) -> set[str]:
    return {
        sample.labels["engine"]
        for metric in metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "inferd_engine"
    }


def test_a_request_is_in_flight_until_it_is_answered(metrics: Metrics) -> None:
    metrics.of("m", 1).admitted()
    metrics.of("m", 1).admitted()
    assert value(metrics, "inferd_in_flight_requests", **M1) == 2
    Statistics(metrics.of("m", 1)).succeeded(1, 2.0, 0.0, Phases(1.5, RUN), 0.0)
    assert value(metrics, "inferd_in_flight_requests", **M1) == 1
    metrics.of("m", 1).withdrawn()
    assert value(metrics, "inferd_in_flight_requests", **M1) == 0
    assert value(metrics, "inferd_requests_total", **M1, code="OK") == 1


def test_an_answer_is_timed(metrics: Metrics) -> None:
    metrics.of("m", 1).admitted()
    Statistics(metrics.of("m", 1)).succeeded(1, 2.0, 0.0, Phases(1.5, RUN), 0.0)
    assert value(metrics, "inferd_request_seconds_sum", **M1) == 2.0
    assert value(metrics, "inferd_request_seconds_bucket", **M1, le="1.0") == 0
    assert value(metrics, "inferd_request_seconds_bucket", **M1, le="2.5") == 1
    assert value(metrics, "inferd_queue_seconds_sum", **M1) == 1.5


def test_a_request_that_did_not_run_has_no_phases(metrics: Metrics) -> None:
    metrics.of("m", 1).admitted()
    metrics.of("m", 1).answered("DEADLINE_EXCEEDED", 2.0)
    assert value(metrics, "inferd_requests_total", **M1, code="DEADLINE_EXCEEDED") == 1
    assert value(metrics, "inferd_request_seconds_count", **M1) == 1
    assert value(metrics, "inferd_queue_seconds_count", **M1) == 0


def test_a_batch_counts_once(metrics: Metrics) -> None:
    metrics.of("m", 1).executed(RUN)
    sums = {
        name: value(metrics, f"inferd_{name}_sum", **M1)
        for name in ("batch_rows", "batch_wait_seconds", "gather_seconds", "compute_seconds")
    }
    assert list(sums.values()) == [4, 8.0, 0.25, 0.5]
    assert value(metrics, "inferd_batch_rows_bucket", **M1, le="4.0") == 1
    assert value(metrics, "inferd_batch_rows_bucket", **M1, le="2.0") == 0


def test_rows_that_a_batch_was_padded_with_count(metrics: Metrics) -> None:
    metrics.of("m", 1).executed(RUN)
    assert value(metrics, "inferd_padding_rows_total", **M1) == 0
    metrics.of("m", 1).executed(RUN, padding=4)
    metrics.of("m", 1).executed(RUN, padding=3)
    assert value(metrics, "inferd_padding_rows_total", **M1) == 7


def test_a_reload_leaves_one_state_of_a_plan(metrics: Metrics) -> None:
    metrics.loaded("m", 1, "CPU", "BUILDING")
    assert value(metrics, "inferd_plan_state", **M1, state="BUILDING") == 1
    metrics.loaded("m", 1, "GPU", "READY")
    metrics.unloaded("m", 1, "CPU", "BUILDING")
    assert value(metrics, "inferd_plan_state", **M1, state="BUILDING") is None
    assert value(metrics, "inferd_plan_state", **M1, state="READY") == 1


def test_a_refusal_counts_and_was_never_in_flight(metrics: Metrics) -> None:
    metrics.refused(("m", 1), "INVALID_ARGUMENT")
    metrics.refused(None, "NOT_FOUND")
    assert value(metrics, "inferd_requests_total", **M1, code="INVALID_ARGUMENT") == 1
    assert value(metrics, "inferd_requests_total", **UNKNOWN, code="NOT_FOUND") == 1
    assert value(metrics, "inferd_in_flight_requests", **M1) is None


def test_the_name_of_an_unknown_model_never_becomes_a_label(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, _):
        for request in (
            infer_request("stranger", rows(1.0)),
            infer_request("fake", rows(1.0), version="777"),
            infer_request("stranger", rows(1.0), version="777"),
        ):
            assert server.refused(request).code() is grpc.StatusCode.NOT_FOUND
        server.infer(infer_request("fake", rows(1.0)))
        text = metrics_text(server.metrics_port)
    assert "stranger" not in text
    assert 'version="777"' not in text
    assert 'inferd_requests_total{code="NOT_FOUND",model="",version=""} 3.0' in text
    assert 'inferd_requests_total{code="OK",model="fake",version="1"} 1.0' in text


def test_a_reload_on_another_engine_leaves_its_label_only(metrics: Metrics) -> None:
    metrics.loaded("m", 1, "GPU")
    metrics.loaded("m", 1, "CPU")
    assert engines(metrics) == {"GPU", "CPU"}
    metrics.unloaded("m", 1, "GPU")
    assert engines(metrics) == {"CPU"}
    assert value(metrics, "inferd_engine", **M1, engine="CPU") == 1


def test_a_reload_on_the_same_engine_keeps_its_label(metrics: Metrics) -> None:
    metrics.loaded("m", 1, "CPU")
    metrics.loaded("m", 1, "CPU")
    metrics.unloaded("m", 1, "CPU")
    assert engines(metrics) == {"CPU"}
    metrics.unloaded("m", 1, "CPU")
    assert engines(metrics) == set()


def test_the_server_tells_what_it_is(metrics: Metrics) -> None:
    metrics.server("1.2.3", "aio")
    assert value(metrics, "inferd_server_info", version="1.2.3", transport="aio") == 1
    metrics.ready(True)
    assert value(metrics, "inferd_ready") == 1
    metrics.ready(False)
    assert value(metrics, "inferd_ready") == 0


def test_metrics_are_served_in_the_format_of_prometheus(
    metrics: Metrics, server: MetricsServer
) -> None:
    metrics.of('m"\n\\', 1).admitted()
    port = server.start("127.0.0.1", 0)
    assert port > 0
    families = {
        family.name: family for family in text_string_to_metric_families(metrics_text(port))
    }
    (sample,) = families["inferd_in_flight_requests"].samples
    assert (sample.labels["model"], sample.value) == ('m"\n\\', 1)


def test_a_port_in_use_is_told_with_what_to_do(server: MetricsServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressInUse) as caught:
            server.start("127.0.0.1", port)
    assert str(caught.value) == (
        f"metrics_port {port} on 127.0.0.1 cannot be had: Address already in use; "
        "choose another with --metrics-port"
    )


def test_a_host_that_is_not_here_is_told(server: MetricsServer) -> None:
    with pytest.raises(AddressInUse, match=r"metrics_port 0 on 192\.0\.2\.1 cannot be had: "):
        server.start("192.0.2.1", 0)


def test_a_stopped_server_gives_its_port_back(metrics: Metrics, server: MetricsServer) -> None:
    port = server.start("127.0.0.1", 0)
    server.stop()
    server.stop()
    with socket.create_server(("127.0.0.1", port)) as taken:
        assert taken.getsockname()[1] == port


def test_gauges_of_models_are_read_when_they_are_asked_for(metrics: Metrics) -> None:
    waiting = {("inferd_waiting_requests", "m", 1): 3.0}
    metrics.watch_models(lambda: waiting)
    assert value(metrics, "inferd_waiting_requests", **M1) == 3
    waiting["inferd_waiting_requests", "m", 1] = 0.0
    assert value(metrics, "inferd_waiting_requests", **M1) == 0
    assert value(metrics, "inferd_open_sequences", **M1) is None
