"""Logs: one line an event, and a level that callers may change."""

from __future__ import annotations

import io
import logging
import re

import pytest
from inferd_server.monitoring.logs import LogControl
from inferd_server.settings.model import LogSettings

from tests.server.monitoring.started import Level, Logs

LOGGER = logging.getLogger("inferd_server.somewhere")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def stumble() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        LOGGER.exception("it failed", extra={"model": "m"})


def test_an_event_is_one_line_of_json_with_its_extras(logs: Logs) -> None:
    logs.start("json")
    LOGGER.info("loaded %s", "it", extra={"model": "a\nb", "version": 1, "why": "", "on": True})
    (event,) = logs.events
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", event.pop("time"))
    assert event == {
        "level": "INFO",
        "logger": "inferd_server.somewhere",
        "message": "loaded it",
        "model": "a\nb",
        "version": 1,
        "why": "",
        "on": True,
    }


def test_an_exception_stays_on_the_line_of_its_event(logs: Logs) -> None:
    logs.start("json")
    stumble()
    (event,) = logs.events
    assert (event["message"], event["model"]) == ("it failed", "m")
    assert "Traceback" in event["exc_info"]
    assert event["exc_info"].endswith("ValueError: two\nlines")


def test_what_json_cannot_hold_is_written_anyhow(logs: Logs) -> None:
    logs.start("json")
    LOGGER.info("odd", extra={"shape": (1, 2), "error": ValueError("x"), "bytes": b"\xff"})
    (event,) = logs.events
    assert event["shape"] == [1, 2]
    assert "x" in event["error"]


def test_text_is_time_level_message_and_pairs(logs: Logs) -> None:
    logs.start("text")
    LOGGER.warning("slow", extra={"model": "m", "rows": 3, "why": "", "text": "a b\nc"})
    (line,) = logs.lines
    assert re.fullmatch(r'[-\d]+ [:\d,]+ WARNING slow model=m rows=3 text="a b\\nc"', line)


def test_text_puts_a_trace_below_the_pairs(logs: Logs) -> None:
    logs.start("text")
    stumble()
    assert logs.lines[0].endswith("ERROR it failed model=m")
    assert logs.lines[1] == "Traceback (most recent call last):"
    assert logs.lines[-2:] == ["ValueError: two", "lines"]


@pytest.mark.parametrize(("stream", "plain"), [(Terminal(), True), (io.StringIO(), False)])
def test_auto_is_text_on_a_terminal(stream: io.StringIO, plain: bool) -> None:
    control = LogControl(LogSettings(), stream)
    control.start()
    LOGGER.info("hello")
    control.stop()
    assert stream.getvalue().startswith("{") is not plain


@pytest.mark.parametrize(
    ("level", "written"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)]
)
def test_the_level_is_the_least_severity_written(logs: Logs, level: Level, written: int) -> None:
    logs.start(level=level)
    for severity in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        LOGGER.log(severity, "event")
    assert len(logs.lines) == written


def test_nothing_is_left_after_stop(logs: Logs, caplog: pytest.LogCaptureFixture) -> None:
    root = logging.getLogger("inferd_server")
    before = (list(root.handlers), root.level, root.propagate)
    logs.start(level="debug").stop()
    LOGGER.error("after")
    assert logs.lines == []
    assert (root.handlers, root.level, root.propagate) == before
    assert [record.message for record in caplog.records] == ["after"]


def test_a_started_log_does_not_write_twice(logs: Logs, caplog: pytest.LogCaptureFixture) -> None:
    logs.start()
    LOGGER.error("once")
    assert len(logs.lines) == 1
    assert caplog.records == []
