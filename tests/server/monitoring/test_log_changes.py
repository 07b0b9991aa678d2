"""The level of the log, changed while the server runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pytest
from inferd_server.errors import InvalidInput
from inferd_server.monitoring.logs import LogControl

from tests.server.monitoring.started import Level, Logs

LOGGER = logging.getLogger("inferd_server.somewhere")


def on(control: LogControl) -> str:
    """Name what is on, from the least: D, I, W, E."""
    now = control.read()
    names = {"D": "log_verbose_level", "I": "log_info", "W": "log_warning", "E": "log_error"}
    return "".join(letter for letter, name in names.items() if now[name])


@pytest.mark.parametrize(
    ("level", "changes", "expected"),
    [
        ("info", {}, "IWE"),
        ("info", {"log_verbose_level": 1}, "DIWE"),
        ("info", {"log_verbose_level": 2}, "DIWE"),
        ("info", {"log_info": False}, "WE"),
        ("info", {"log_info": False, "log_warning": False}, "E"),
        ("info", {"log_info": False, "log_warning": False, "log_error": False}, ""),
        ("info", {"log_file": "", "log_format": "default"}, "IWE"),
        ("debug", {"log_verbose_level": 0}, "IWE"),
        ("debug", {"log_verbose_level": 0, "log_info": False}, "WE"),
        ("error", {"log_info": True}, "IWE"),
        ("error", {"log_warning": True, "log_info": False}, "WE"),
        ("error", {"log_error": False}, ""),
    ],
)
def test_a_change_sets_the_level(
    logs: Logs, level: Level, changes: Mapping[str, bool | int | str], expected: str
) -> None:
    control = logs.start(level=level)
    control.change(changes)
    assert on(control) == expected
    LOGGER.info("event")
    assert len(logs.lines) == ("I" in expected)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"log_warning": False}, "log_warning cannot be off while a lesser severity is on"),
        ({"log_error": False}, "log_error cannot be off while a lesser severity is on"),
        (
            {"log_verbose_level": 1, "log_info": False},
            "log_info cannot be off while a lesser severity is on",
        ),
        ({"log_file": "/tmp/x"}, "log_file cannot be changed while the server runs"),
        ({"log_format": "ISO8601"}, "log_format cannot be changed while the server runs"),
        ({"log_info": 0}, "log setting 'log_info' must be of type bool"),
        ({"log_verbose_level": True}, "log setting 'log_verbose_level' must be of type int"),
        ({"log_info": False, "log_error": "no"}, "log setting 'log_error' must be of type bool"),
    ],
)
def test_a_change_that_cannot_be_had_changes_nothing(
    logs: Logs, changes: Mapping[str, bool | int | str], sentence: str
) -> None:
    control = logs.start()
    with pytest.raises(InvalidInput) as caught:
        control.change(changes)
    assert str(caught.value) == sentence
    assert on(control) == "IWE"


def test_an_unknown_setting_is_told_with_those_that_are_known(logs: Logs) -> None:
    control = logs.start()
    with pytest.raises(InvalidInput, match=r"unknown log setting 'log_all'; known are log_file, "):
        control.change({"log_all": True})


def test_everything_off_can_be_on_again(logs: Logs) -> None:
    control = logs.start(level="error")
    control.change({"log_error": False})
    LOGGER.critical("silent")
    control.change({"log_error": True})
    LOGGER.error("heard")
    assert [event["message"] for event in logs.events] == ["heard"]
