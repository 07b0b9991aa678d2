"""Requests that wait, without slots."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st


@dataclass(eq=False)
class Request:
    """What the scheduler knows of a request; no two are equal."""

    rows: int = 1
    key: str = "a"
    arrived: float = 0.0
    deadline: float | None = None
    level: int = 0
    sequence: int = 0
    delay_at: float = float("inf")
    cancelled: bool = False
    trial: bool = False
    stream: object | None = None


def requests() -> st.SearchStrategy[list[Request]]:
    """Requests in order of arrival, some of them cancelled or expiring."""
    one = st.builds(
        Request,
        rows=st.integers(1, 6),
        key=st.sampled_from("abc"),
        arrived=st.integers(0, 20).map(float),
        deadline=st.none() | st.integers(0, 40).map(float),
        cancelled=st.booleans(),
    )
    return st.lists(one, max_size=12).map(lambda found: sorted(found, key=lambda r: r.arrived))
