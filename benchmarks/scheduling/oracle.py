"""Ideal admission, beside which the scheduler is held: it knows what every run costs.

But for the speed of the engine, which it takes from the last run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.scheduling.loads import Arrival, Cell

EASE = 0.9
"""Part of a forecast that has to be too long already for a request to be refused on arrival."""


@dataclass(slots=True)
class Outcome:
    """What became of requests."""

    sent: int = 0
    in_time: int = 0
    late: list[float] = field(default_factory=list)
    """When the runs ended of requests that were late by then, in seconds."""
    served: list[float] = field(default_factory=list)
    """When the runs ended of all that ran."""
    turned_away: list[float] = field(default_factory=list)
    """When requests were told that they would be late."""
    took: list[float] = field(default_factory=list)
    """From arrival to answer, of all that ran."""

    @property
    def goodput(self) -> float:
        """Part of all requests that were answered in time."""
        return self.in_time / self.sent

    @property
    def lateness(self) -> float:
        """Part of the served that were late."""
        return len(self.late) / max(1, len(self.served))

    def end(self, arrival: Arrival, now: float) -> None:
        """Note that a run of a request ended."""
        self.served.append(now)
        self.took.append(now - arrival.at)
        if now + arrival.way > arrival.deadline:
            self.late.append(now)
        else:
            self.in_time += 1


def ideal(cell: Cell, arrivals: Sequence[Arrival], policy: str) -> Outcome:
    """Serve arrivals on one engine.

    Args:
        cell: what runs cost.
        arrivals: in order.
        policy: "none": what has expired leaves, and the rest runs; "dispatch": when a batch is
            made, who cannot be in time is dropped; "arrival": and whoever the backlog makes late
            is refused on arrival.
    """
    takes, found = cell.takes(), Outcome(len(arrivals))
    queue: list[Arrival] = []
    now, speed, index = 0.0, 1.0, 0
    while index < len(arrivals) or queue:
        now = now if queue else max(now, arrivals[index].at)
        while index < len(arrivals) and arrivals[index].at <= now:
            arrival = arrivals[index]
            index += 1
            end = now + speed * work(cell, [*queue, arrival])
            late = EASE * (end - arrival.at) > arrival.deadline - arrival.at
            if policy == "arrival" and queue and late:
                found.turned_away.append(arrival.at)
            else:
                queue.append(arrival)
        queue = [arrival for arrival in queue if arrival.deadline > now]
        batch = chosen(cell, queue, now, speed if policy != "none" else 0.0)
        if not batch:
            continue
        queue = [arrival for arrival in queue if arrival not in batch]
        took = takes(batch[0].shape, len(batch), now)
        now += took
        speed = took / cell.cost(batch[0].shape, len(batch))
        for arrival in batch:
            found.end(arrival, now)
    return found


def chosen(cell: Cell, queue: list[Arrival], now: float, speed: float) -> list[Arrival]:
    """Return the next batch; who cannot be in time is taken out of the queue."""
    while queue:
        batch = [arrival for arrival in queue if arrival.shape == queue[0].shape]
        rows = fits = min(len(batch), cell.engine.most)
        while fits and speed * cell.cost(batch[0].shape, fits) > batch[0].deadline - now:
            fits -= 1
        if 2 * fits >= rows:
            return batch[:fits]
        queue.pop(0)
    return []


def work(cell: Cell, waiting: Sequence[Arrival]) -> float:
    """Return the seconds that all of them take on an undisturbed engine."""
    seconds = 0.0
    for shape, count in Counter(arrival.shape for arrival in waiting).items():
        full, rest = divmod(count, cell.engine.most)
        seconds += full * cell.cost(shape, cell.engine.most)
        seconds += cell.cost(shape, rest) if rest else 0.0
    return seconds
