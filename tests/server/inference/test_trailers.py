"""What callers are told at the end of a call."""

from __future__ import annotations

import pytest
from inferd_server.inference.trailers import Trailers, server_timing
from inferd_server.monitoring.phases import PHASES, Execution, Phases

RAN = Phases(0.25, Execution(rows=4, waited=0.125, gather=0.0625, compute=0.5))


def test_the_phases_are_told_in_milliseconds_and_add_up() -> None:
    told = dict(part.split(";dur=") for part in server_timing(1.0, 0.03125, RAN).split(", "))
    assert list(told) == [*PHASES, "total"]
    assert told["decode"] == "31.250000"
    assert told["queue"] == told["batch_wait"] == "125.000000"
    assert told["total"] == "1000.000000"
    assert sum(map(float, told.values())) == 2 * float(told["total"])


@pytest.mark.parametrize(("asked", "told"), [("true", ["server-timing"]), ("false", []), ("", [])])
def test_the_time_is_told_to_who_asks_for_it(asked: str, told: list[str]) -> None:
    trailing = Trailers().of((("user-agent", "x"), ("server-timing", asked)), 1.0, 0.0, RAN)
    assert [key for key, _ in trailing] == told


def test_the_load_is_told_to_everybody_where_it_is_told_at_all() -> None:
    trailers = Trailers(lambda: b"load")
    assert trailers.of((("user-agent", "x"),), 1.0, 0.0, RAN) == [
        ("endpoint-load-metrics-bin", b"load")
    ]
    # Whoever looks whether a call asks for anything finds that it does.
    assert trailers.usual != "user-agent" == Trailers().usual
