"""The decision over tables is the decision over requests."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from inferd_server.scheduler.decision import Limits, next_batch
from inferd_server.scheduler.table import Table, next_table

from tests.server.scheduler.requests import Request, requests

COLUMNS = [("place", "u4"), ("rows", "u4"), ("key", "u4"), ("arrived", "f8"), ("deadline", "f8")]


def table_of(waiting: list[Request]) -> Table:
    table = np.zeros(len(waiting), np.dtype(COLUMNS))
    for place, request in enumerate(waiting):
        deadline = np.inf if request.deadline is None else request.deadline
        table[place] = (place, request.rows, ord(request.key), request.arrived, deadline)
    return table


@given(
    requests(),
    st.integers(0, 40).map(float),
    st.integers(1, 8),
    st.sampled_from([0.0, 3.0, 10.0]),
    st.sampled_from([(), (1, 4, 8), (3, 5)]),
)
def test_tables_and_requests_lead_to_the_same_batch(
    waiting: list[Request], now: float, max_rows: int, delay: float, sizes: tuple[int, ...]
) -> None:
    limits = Limits(max_rows, delay, sizes)
    expected = next_batch(waiting, now, limits)
    gone = np.array([request.cancelled for request in waiting], dtype=bool)
    decision = next_table(table_of(waiting), gone, now, limits)
    places = {id(request): place for place, request in enumerate(waiting)}
    assert decision.run["place"].tolist() == [places[id(r)] for r in expected.run]
    assert decision.wake == expected.wake
    dropped = set(decision.drop["place"].tolist())
    assert dropped >= {places[id(r)] for r in expected.drop}
    dead = {p for p, r in enumerate(waiting) if r.cancelled or (r.deadline or np.inf) <= now}
    assert dropped <= dead | {p for p, r in enumerate(waiting) if r.deadline == 0.0}
    everywhere = [*decision.run["place"], *decision.drop["place"], *decision.keep["place"]]
    assert sorted(everywhere) == list(range(len(waiting)))
