"""Real servers tell a real webhook, and a sink that hangs changes nothing for anybody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import numpy as np
import pytest
from inferd_client import Client

from tests import models
from tests.fakes.webhook import WITHIN, Webhook
from tests.server.lifecycle.process import Process
from tests.server.serving import Running, metrics_text, running, running_split

QUICK = {"alert_interval_s": 0.1, "alert_patience_s": 0.1, "alert_pause_s": 0}
ALWAYS = "feedback: {tokens: always}\n"
ABOUT = "InferdAccuracyLow (model m, version 1)"


@pytest.fixture
def good() -> Iterator[Webhook]:
    with Webhook() as webhook:
        yield webhook


@pytest.fixture
def hanging() -> Iterator[Webhook]:
    with Webhook(lambda _: None) as webhook:
        yield webhook


def labels(client: Client, label: int, count: int) -> None:
    """Send labels for predictions of class 1."""
    rows = np.tile(np.float32([0, 1, 0, 0]), (count, 1))
    token = client.infer("m", INPUT0=rows).prediction_token
    assert client.feedback(token, [label] * count) == count


@pytest.mark.parametrize(
    "start",
    [running, pytest.param(running_split, marks=pytest.mark.slow)],
    ids=["one process", "split"],
)
def test_an_accuracy_that_falls_is_told_and_so_is_its_recovery(
    start: Callable[..., AbstractContextManager[Running]],
    good: Webhook,
    hanging: Webhook,
    tmp_path: Path,
) -> None:
    urls = tmp_path / "urls"
    urls.write_text(f"{hanging.url}\n{good.url}\n")
    folder = models.repository(tmp_path / "m", {"m": models.identity("FP32")}, {"m": ALWAYS})
    with ExitStack() as stack:
        server = stack.enter_context(
            start(folder, alert_urls_file=urls, feedback_window_labels=40, **QUICK)
        )
        client = stack.enter_context(Client(f"127.0.0.1:{server.port}"))
        labels(client, 2, 30)
        (line,) = good.lines()
        assert line.startswith(f"FIRING {ABOUT}: even the upper end")
        assert hanging.tried.get(timeout=WITHIN) == 1
        # It holds that message until the end, and nobody else minds.
        assert "inferd_alerts_firing 1.0" in metrics_text(server.metrics_port)
        assert "inferd_alerts_unsent 0.0" not in metrics_text(server.metrics_port)
        for _ in range(2):
            labels(client, 1, 30)
        (line,) = good.lines()
        assert line.startswith(f"RESOLVED {ABOUT}")


def test_a_file_of_sinks_that_cannot_be_used_ends_the_start_with_a_sentence(
    tmp_path: Path,
) -> None:
    folder = models.repository(tmp_path / "m", {"m": models.identity("FP32")})
    flags = ("--model-repository", str(folder), "--processes", "split")
    with Process(*flags, "--alert-urls-file", str(tmp_path / "none")) as process:
        told = process.wait_for("cannot start")
        assert "alert_urls_file: " in told["error"]
        assert process.exit_code() == 1
