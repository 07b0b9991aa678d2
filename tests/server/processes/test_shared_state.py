"""What a front asks for its caller changes every process, or none."""

from __future__ import annotations

import io
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from inferd_server.errors import InvalidInput
from inferd_server.monitoring.logs import LogControl
from inferd_server.processes.messages import LogChange, NoRegion, NoRegions, RegisterRegion
from inferd_server.processes.shared_state import Registry, SharedState
from inferd_server.settings.model import LogSettings

from tests.fakes.child import FakeChild

QUIET = LogChange({"log_info": False})


def relay_of(
    *replies: Callable[[object], object],
) -> tuple[SharedState, LogControl, list[FakeChild]]:
    """Make a shared_state whose fronts answer as they are told to."""
    made = [FakeChild("front", index) for index in range(len(replies))]
    for front, reply in zip(made, replies, strict=True):
        front.channel.reply = reply
    processes = [front.child for front in made]
    children = SimpleNamespace(
        live_endpoints=lambda: processes, everyone=lambda: processes, worker=None
    )
    logs = LogControl(LogSettings(), io.StringIO())
    logs.start()
    return SharedState(children, Registry(), logs, None, None, None), logs, made  # type: ignore[arg-type]


def does(_: object) -> None:
    """Answer that it is done."""


def refuses_quiet(message: object) -> None:
    if message == QUIET:
        raise InvalidInput("not here")


def test_a_change_of_the_log_that_one_process_refuses_is_taken_back_everywhere() -> None:
    shared_state, logs, made = relay_of(does, refuses_quiet)
    before = logs.read()
    try:
        with pytest.raises(InvalidInput, match="not here"):
            shared_state.answer(QUIET)
        assert logs.read() == before
    finally:
        logs.stop()
    for front in made:
        assert [front.is_asked()[0], front.is_asked()[0]] == [QUIET, LogChange(before)]


def test_a_change_of_the_log_that_is_none_reaches_nobody() -> None:
    shared_state, logs, (front,) = relay_of(does)
    try:
        with pytest.raises(InvalidInput, match="unknown log setting"):
            shared_state.answer(LogChange({"log_loud": True}))
    finally:
        logs.stop()
    assert front.channel.asked.empty()


def test_a_region_without_a_name_is_refused_and_every_other_one_stays() -> None:
    shared_state, logs, (front,) = relay_of(does)
    logs.stop()
    region = RegisterRegion("r", "/key", 0, 1)
    shared_state.answer(region)
    with pytest.raises(InvalidInput, match="needs a name"):
        shared_state.answer(RegisterRegion("", "/key", 0, 1))
    shared_state.answer(NoRegion("r"))
    shared_state.answer(NoRegions())
    asked = [front.is_asked()[0] for _ in range(3)]
    assert asked == [region, NoRegion("r"), NoRegions()]
    assert front.channel.asked.empty()
