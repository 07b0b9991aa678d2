"""Where the time of a request went: phases that add up, told to operators and to callers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_server.monitoring.phases import PHASES, AnsweredRequests, Execution, Phases
from inferd_server.monitoring.series import SAMPLED, Series
from inferd_server.monitoring.statistics import Statistics

from tests.server.inference.held import occupy, waiting
from tests.server.monitoring.timing import ASKED, samples, told
from tests.server.serving import PATIENCE, infer_request, rows, running_fake

TIMES = st.floats(0.0, 100.0)


@given(st.lists(st.tuples(TIMES, TIMES, TIMES, TIMES, TIMES, TIMES), min_size=1))
def test_the_phases_of_all_requests_add_up_to_their_time(
    times: list[tuple[float, float, float, float, float, float]],
) -> None:
    answers = AnsweredRequests(
        rows=[1] * len(times),
        totals=[d + q + g + c + r for d, q, _, g, c, r in times],
        decodes=[d for d, *_ in times],
        phases=[Phases(q, Execution(1, w, g, c)) for _, q, w, g, c, _ in times],
        walls=[0.0] * len(times),
    )
    seconds = answers.seconds
    assert sum(seconds) == pytest.approx(sum(answers.totals))
    assert sum(seconds) == pytest.approx(
        sum(sum(answers.seconds_of(place)) for place in range(len(times)))
    )
    assert all(one >= -1e-9 for one in seconds)


def test_who_came_while_the_engine_waited_waited_with_it_for_a_part_of_that_time() -> None:
    run = Execution(rows=2, waited=8.0, gather=0.0, compute=0.0)
    first, second = Phases(8.5, run), Phases(2.0, run)
    assert first.seconds(total=9.0, decode=0.0) == (0.0, 0.5, 8.0, 0.0, 0.0, 0.5)
    assert second.seconds(total=2.0, decode=0.0) == (0.0, 0.0, 2.0, 0.0, 0.0, 0.0)


def test_the_first_request_and_every_so_many_after_it_are_sampled() -> None:
    series = Series(lambda: 0.0)
    statistics = Statistics(series)
    phases = Phases(0.0, Execution(1, 0.0, 0.0, 0.5))
    counts = []
    for _ in range(2 * SAMPLED + 1):
        series.admitted()
        statistics.succeeded(1, 2.0, 0.25, phases, 0.0)
        counts.append(sum(series.snapshot().histograms[-1].counts))
    assert counts == [1] * SAMPLED + [2] * SAMPLED + [3]
    *_, decode, reply = series.snapshot().histograms
    assert (decode.total, reply.total) == (0.75, 3.75)


def test_what_is_counted_after_a_reload_counts_for_the_version_and_for_the_handle() -> None:
    series = Series(lambda: 0.0)
    before, after = Statistics(series), Statistics(series)
    phases = Phases(0.5, Execution(1, 0.0, 0.0, 0.25))
    for statistics in (before, after, before, after, after):
        series.admitted()
        statistics.succeeded(1, 1.0, 0.125, phases, 0.0)
    assert (before.read().success.count, after.read().success.count) == (2, 3)
    assert series.snapshot().phases == (0.625, 2.5, 0.0, 0.0, 1.25, 0.625)
    assert series.snapshot().in_flight == 0


def test_each_phase_is_told_the_time_that_was_spent_in_it(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, engine):
        first = occupy(server, engine)
        began = time.monotonic()
        # It comes while the first one runs, and waits for the engine until that is released.
        second = server.stub.ModelInfer.future(
            infer_request("fake", rows(1.0)), timeout=PATIENCE, metadata=[ASKED]
        )
        waiting(server, 1)
        held = time.monotonic() - began
        engine.release()
        first.result()
        other = told(second)
        counted = samples(server, "inferd_phase_seconds_total")
        (total,) = samples(server, "inferd_request_seconds_sum").values()
    assert list(other) == [*PHASES, "total"]
    assert sum(other[name] for name in PHASES) == pytest.approx(other["total"], abs=1e-4)
    assert other["queue"] > 0.5 * other["total"]
    assert counted["compute"] > held
    assert counted["queue"] * 1000 >= other["queue"] - 1e-4
    assert sum(counted.values()) == pytest.approx(total, abs=1e-9)
