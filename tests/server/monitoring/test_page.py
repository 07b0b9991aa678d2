"""The page on the metrics port: what it shows, to whom, and that it asks nobody else."""

from __future__ import annotations

import http.client
import json
import logging
import math
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from inferd_client import Client
from inferd_server.monitoring.logs import LogControl
from inferd_server.monitoring.page.numbers import numbers
from inferd_server.monitoring.page.page import POLICY, PageSources, make_page
from inferd_server.monitoring.recent import MOST_LINES, LogLine, latest_lines
from inferd_server.monitoring.snapshot import DRIFT_GAUGES
from inferd_server.settings.model import LogSettings
from inferd_server.settings.sources import load_settings

from tests import models
from tests.server.monitoring.test_exposition import NOW, ODD, counted
from tests.server.serving import (
    PATIENCE,
    Running,
    infer_request,
    metrics_text,
    rows,
    running,
    running_replicas,
    running_split,
)

STARTS = {"one process": running, "split": running_split, "replicas": running_replicas}
FOLDER = files("inferd_server.monitoring.page")
TOKEN = "inferd_prediction_token"


def asked(port: int, path: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def data(port: int) -> Any:
    response, body = asked(port, "/page.json")
    assert (response.status, response.headers["Content-Type"]) == (200, "application/json")
    return json.loads(body)


@pytest.fixture(scope="module", params=list(STARTS))
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    folder = models.repository(tmp_path_factory.mktemp("models"), {"scaled": models.scale(2.0)})
    (folder / "broken/1").mkdir(parents=True)
    (folder / "broken/1/model.onnx").write_bytes(b"no model")
    with STARTS[request.param](folder, ready_without_models=True, strict_readiness=False) as server:
        yield server


def test_the_models_and_why_they_are_as_they_are_are_shown_in_every_arrangement(
    served: Running,
) -> None:
    for _ in range(3):
        served.infer(infer_request("scaled", rows(1.0)))
    served.refused(infer_request("absent", rows(1.0)))
    found = data(served.metrics_port)
    broken, scaled = found["models"]
    assert (broken["name"], broken["state"]) == ("broken", "UNAVAILABLE")
    assert "ONNX" in broken["reason"]
    assert (scaled["state"], scaled["engine"]) == ("READY", "onnxruntime/CPUExecutionProvider")
    assert "rows" in scaled["batch_reason"]
    (series,) = [one for one in found["series"] if one["name"] == "scaled"]
    assert series["codes"] == {"OK": 3}
    assert sum(series["latency"]) == series["batches"] == series["rows"] == 3
    assert found["unknown"] == {"NOT_FOUND": 1}
    assert found["ready"] is True


def test_warnings_of_every_process_are_shown_in_their_order(served: Running) -> None:
    lines = data(served.metrics_port)["lines"]
    if served.server is not None:
        # The log is that of the tests' process, and nobody started it.
        assert lines == []
        return
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
    failed = [line for line in lines if "a version failed to load" in line["text"]]
    assert {line["part"] for line in failed} in ({"worker"}, {"replica-0", "replica-1"})
    assert all(line["level"] == "error" for line in failed)
    assert all("model=broken version=1" in line["text"] for line in failed)


def test_the_page_is_whole_without_anybody_else(served: Running) -> None:
    response, page = asked(served.metrics_port, "/")
    assert response.headers["Content-Security-Policy"] == POLICY
    assert "http" not in POLICY
    assert "unsafe" not in POLICY
    needed = re.findall(r'(?:src|href)="([^"#]+)"', page.decode())
    assert set(needed) == {"data:,", "page.css", "page.js", "metrics"}
    for name in ("page.css", "page.js", "metrics"):
        assert asked(served.metrics_port, f"/{name}")[0].status == 200
    assert asked(served.metrics_port, "/page.py")[0].status == 404


def test_no_file_of_the_page_names_another_host_or_writes_markup() -> None:
    for path in FOLDER.iterdir():
        if path.name.endswith((".html", ".css", ".js")):
            text = path.read_text().replace("http://www.w3.org/2000/svg", "")
            assert "//" not in re.sub(r"^\s*// .*$", "", text, flags=re.MULTILINE), path.name
            assert "innerHTML" not in text


def page(**wanted: object) -> Any:
    """Return what is shown of a server of which everything is known, under some settings."""
    metrics = counted(1.0, 2)
    settings = load_settings({name: str(value) for name, value in wanted.items()}, {})
    made = make_page(settings, PageSources(metrics.snapshot, list, list))
    if made is None:
        return None
    found = made.answer("/page.json")
    assert found is not None
    return json.loads(b"".join(found.body))


@pytest.mark.parametrize(
    ("settings", "everything"),
    [
        ({}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "0.0.0.0", "metrics_host": "127.0.0.1"}, True),
        ({"metrics_host": "0.0.0.0"}, False),
        ({"anonymous_permissions": "infer"}, False),
        ({"anonymous_permissions": "infer", "metrics_page": "all"}, True),
        ({"metrics_page": "numbers"}, False),
    ],
)
def test_reasons_and_log_lines_are_for_who_may_see_them(
    settings: dict[str, object], everything: bool
) -> None:
    found = page(**settings)
    assert found["everything"] is everything
    if not everything:
        assert (found["alerts"], found["lines"]) == (None, [])
        assert {key for model in found["models"] for key in model} == {
            "name", "version", "state", "engine", "plan_state",
        }  # fmt: skip


def test_there_is_no_page_where_none_is_wanted(tmp_path: Path) -> None:
    assert page(metrics_page="off") is None
    with running(tmp_path, metrics_page="off", ready_without_models=True) as server:
        assert asked(server.metrics_port, "/")[0].status == 404
        assert asked(server.metrics_port, "/metrics")[0].status == 200


def test_all_that_is_counted_can_be_shown() -> None:
    drifted = {(name, ODD, 1, "y.max"): 0.25 for name in DRIFT_GAUGES}
    found = numbers(replace(counted(1.0, 2).snapshot(), drifted=drifted), NOW)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [one["name"] for one in found["series"]] == [ODD, "plain"]
    assert found["series"][0]["refused"] == {"INVALID_ARGUMENT": 1}
    (accuracy, _) = found["accuracy"]
    assert accuracy["lower"] <= accuracy["value"] <= accuracy["upper"]
    (feature,) = found["drift"]
    about = {"name": ODD, "version": "1", "feature": "y.max"}
    assert feature == {**about, "ks": 0.25, "psi": 0.25, "alarm": 0.25}


ODD_ROWS = np.tile(
    np.array([[math.nan] * 4, [math.inf] * 4, [-math.inf, math.inf, 0, 3.4e38]], np.float32),
    (10, 1),
)


@pytest.mark.parametrize(
    "reference",
    [np.ones((120, 4)), np.arange(480.0).reshape(120, 4), np.tile(ODD_ROWS, (4, 1))],
    ids=["constant", "rising", "odd"],
)
def test_values_that_are_no_numbers_leave_the_page_whole(
    tmp_path: Path, reference: npt.NDArray[np.float64]
) -> None:
    model = models.repository(tmp_path, {"m": models.identity("FP32")}) / "m/1"
    np.savez(model / "reference.npz", INPUT0=reference.astype(np.float32))
    watching = {"sample_share": 1, "drift_cpu_share": 1, "drift_window_rows": 60}
    with (
        running(tmp_path, **watching) as server,
        Client(f"127.0.0.1:{server.port}") as client,
    ):
        for _ in range(2):
            answer = client.infer("m", INPUT0=ODD_ROWS, parameters={TOKEN: True})
            client.feedback(answer.prediction_token, [0] * len(ODD_ROWS))
        end = time.monotonic() + PATIENCE
        while not (drift := client.drift()) or not drift[0]["windows"]:
            assert time.monotonic() < end, drift
        shown = data(server.metrics_port)
        assert 0 < shown["accuracy"][0]["value"] < 1
        told = metrics_text(server.metrics_port)
    assert "inferd_drift_alarm{" in told


def test_the_last_warnings_are_kept_with_what_was_said_of_them() -> None:
    logs = LogControl(LogSettings(log_level="error"), part="front-1")
    logs.start()
    try:
        log = logging.getLogger("inferd_server.anything")
        log.error("it failed", extra={"model": "m", "nothing": ""})
        log.warning("below the level that is logged")
        for number in range(MOST_LINES):
            log.error("line", extra={"number": number + 1})
        found = logs.recent()
    finally:
        logs.stop()
    assert [line.text for line in found] == [f"line number={n + 1}" for n in range(MOST_LINES)]
    assert {(line.level, line.part) for line in found} == {("error", "front-1")}


def test_of_several_processes_the_last_lines_are_shown() -> None:
    lines = [LogLine(float(n % 7), "error", "", str(n)) for n in range(3 * MOST_LINES)]
    found = latest_lines(lines)
    assert len(found) == MOST_LINES
    assert [line.at for line in found] == sorted(line.at for line in lines)[-MOST_LINES:]
