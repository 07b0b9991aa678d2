"""The metrics port: what it answers, and that nobody can take it, or the server, away."""

from __future__ import annotations

import contextlib
import errno
import gzip
import http.client
import resource
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from inferd_server.monitoring import exporter
from inferd_server.monitoring.metrics import Metrics, MetricsServer

from tests.server.lifecycle.process import ready_process
from tests.server.security.secured import calling, repository
from tests.server.serving import PATIENCE, metrics_text

LIMIT = 4
ARRANGEMENTS = {"one": ("threads",), "split": ("split", "--fronts", "1")}


@pytest.fixture
def metrics() -> Metrics:
    found = Metrics()
    found.server("1.2.3", "aio")
    return found


@pytest.fixture
def port(metrics: Metrics) -> Iterator[int]:
    server = MetricsServer(metrics, LIMIT)
    yield server.start("127.0.0.1", 0)
    server.stop()


def answer(
    port: int, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def half_a_request(port: int) -> socket.socket:
    """Open a connection that says something, and not all of it."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    connection.sendall(b"GET /metr")
    return connection


def assert_closed(connection: socket.socket) -> None:
    """Wait for the end that the server makes."""
    with contextlib.suppress(ConnectionResetError):
        assert connection.recv(1) == b""


def raw(port: int, data: bytes) -> bytes:
    """Send some bytes, and return all that comes."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_metrics_are_told_in_the_format_that_was_asked_for(port: int) -> None:
    response, body = answer(port, "GET", "/metrics")
    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    assert b'inferd_server_info{transport="aio",version="1.2.3"} 1.0' in body
    response, body = answer(port, "GET", "/metrics", Accept="application/openmetrics-text")
    assert response.headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    response, body = answer(port, "GET", "/metrics", **{"Accept-Encoding": "gzip"})
    assert response.headers["Content-Encoding"] == "gzip"
    assert b"inferd_server_info" in gzip.decompress(body)


@pytest.mark.parametrize("path", ["/v2/health/ready", "/v2/health/live", "/", "/metrics/x", "//"])
def test_any_other_path_is_not_found_and_says_where_health_is(port: int, path: str) -> None:
    response, body = answer(port, "GET", path)
    assert response.status == 404
    assert b"grpc.health.v1" in body


@pytest.mark.parametrize(("path", "status"), [("/metrics", 200), ("/nope", 404)])
def test_head_has_the_headers_of_get_and_no_body(port: int, path: str, status: int) -> None:
    got, body = answer(port, "GET", path)
    response, nothing = answer(port, "HEAD", path)
    assert response.status == got.status == status
    assert nothing == b""
    # Numbers on the page may have gained or lost a digit since.
    assert abs(int(response.headers["Content-Length"]) - len(body)) < 32
    assert response.headers["Content-Type"] == got.headers["Content-Type"]


@pytest.mark.parametrize("path", ["/metrics", "/v2/models/digits/infer"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_whoever_takes_it_for_a_rest_api_is_told_that_there_is_none(
    port: int, method: str, path: str
) -> None:
    response, body = answer(port, method, path, bytes(200_000))
    assert response.status == 405
    assert response.headers["Allow"] == "GET, HEAD"
    assert b"There is no REST API: inference is gRPC" in body


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"405"),
        (b"GET /metrics\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * exporter.HEAD_BYTES * 2, b"431"),
        (b"GET /%ff\x00?name[]=%zz HTTP/1.1\r\n\r\n", b"404"),
        (b"GET http://[/metrics HTTP/1.1\r\n\r\n", b"404"),
    ],
)
def test_other_protocols_and_nonsense_get_a_status(port: int, sent: bytes, status: bytes) -> None:
    assert raw(port, sent).startswith(b"HTTP/1.1 " + status + b" ")
    assert b"inferd_server_info" in metrics_text(port).encode()


def test_half_requests_beyond_the_bound_give_way_to_who_asks(port: int) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(half_a_request(port)) for _ in range(LIMIT * 5)]
        assert "inferd_server_info" in metrics_text(port)
        # The oldest were closed.
        assert_closed(held[0])


def test_half_a_request_is_closed_after_a_while(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "REQUEST_S", 0.05)
    with half_a_request(port) as connection:
        assert_closed(connection)


def test_all_connections_cost_one_thread(port: int) -> None:
    before = threading.active_count()
    with ExitStack() as stack:
        for _ in range(LIMIT * 5):
            stack.enter_context(half_a_request(port))
        metrics_text(port)
        assert threading.active_count() == before


def test_metrics_that_cannot_be_collected_are_an_error_and_the_next_are_served(
    metrics: Metrics, port: int
) -> None:
    def broken() -> dict[str, float]:
        raise ValueError("secret detail")

    metrics.watch(broken)
    response, body = answer(port, "GET", "/metrics")
    assert response.status == 500
    assert b"secret" not in body
    metrics.watch(dict)
    assert "inferd_server_info" in metrics_text(port)


def test_a_stop_does_not_wait_for_who_is_connected(metrics: Metrics) -> None:
    server = MetricsServer(metrics, LIMIT)
    port = server.start("127.0.0.1", 0)
    with half_a_request(port) as connection:
        assert b"inferd" in metrics_text(port).encode()
        server.stop()
        assert_closed(connection)


class OutOfDescriptors(socket.socket):
    """Cannot accept at first."""

    failures = 0

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        """Fail for longer than asyncio tries in a row."""
        if self.failures <= exporter.BACKLOG:
            self.failures += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def test_a_lack_of_descriptors_is_waited_out_instead_of_tried_without_end(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    listening = OutOfDescriptors()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    monkeypatch.setattr(exporter, "listen", lambda *_: listening)
    server = MetricsServer(metrics, LIMIT)
    port = server.start("127.0.0.1", 0)
    started = time.monotonic()
    assert "inferd_server_info" in metrics_text(port)
    # asyncio pauses for a second.
    assert time.monotonic() - started > 0.9
    server.stop()
    assert "Too many open files" in vars(caplog.records[0])["error"]


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_who_uses_up_connections_of_the_metrics_port_takes_nothing_from_callers(
    arrangement: str, tmp_path: Path
) -> None:
    models = repository(tmp_path / "models")
    arranged = ("--processes", *ARRANGEMENTS[arrangement])
    with ready_process(models, *arranged) as (process, where), ExitStack() as stack:
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (256, hard))
        for _ in range(400):
            stack.enter_context(half_a_request(where["metrics_port"]))
        assert len(list(Path(f"/proc/{process.pid}/task").iterdir())) < 60
        assert len(list(Path(f"/proc/{process.pid}/fd").iterdir())) < 256
        with calling(where["grpc_port"]) as caller:
            assert caller.infer().model_name == "scaled"
        assert "inferd_ready 1.0" in metrics_text(where["metrics_port"])


def test_the_metrics_port_can_have_an_address_of_its_own(tmp_path: Path) -> None:
    models = repository(tmp_path / "models")
    flags = ("--processes", "threads", "--metrics-host", "127.0.0.2")
    with ready_process(models, *flags) as (_, where):
        url = f"http://127.0.0.2:{where['metrics_port']}/metrics"
        with urllib.request.urlopen(url, timeout=PATIENCE) as page:
            assert b"inferd_ready 1.0" in page.read()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", where["metrics_port"]), timeout=PATIENCE)


def test_whoever_asks_all_the_time_takes_a_part_of_a_core_and_not_all_of_it(
    metrics: Metrics, port: int
) -> None:
    begun, ended = [], []

    def slow() -> dict[str, float]:
        begun.append(time.monotonic())
        while time.monotonic() < begun[-1] + 0.02:
            pass
        ended.append(time.monotonic())
        return {}

    metrics.watch(slow)
    for _ in range(4):
        assert answer(port, "GET", "/metrics")[0].status == 200
    rests = [after - before for before, after in zip(ended, begun[1:], strict=False)]
    assert min(rests) >= exporter.REST * 0.02
