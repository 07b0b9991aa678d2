"""The forecast of when a request that arrives now would be answered."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from inferd_server.batching.decision import BatchBounds
from inferd_server.batching.run_costs import RunCosts
from inferd_server.monitoring.phases import Execution


@dataclass(frozen=True, slots=True)
class Expected:
    """Seconds that a request takes, if runs are as the last ones were in the middle."""

    wait: float
    """Until its run begins."""
    run: float
    """Of its run."""

    @property
    def total(self) -> float:
        """Until its answer."""
        return self.wait + self.run


class Forecast:
    """What one model version is expected to take, seen from where requests are admitted.

    Any thread may call any method.
    """

    def __init__(
        self, limits: BatchBounds, costs: RunCosts | None = None, instances: int = 1
    ) -> None:
        """Begin with nothing known.

        Args:
            limits: bounds of batches.
            costs: of the queue, where that is in this process; None: answers tell what runs took.
            instances: engines that run batches beside each other.
        """
        self.costs = RunCosts(limits.sizes) if costs is None else costs
        self.last: Execution | None = None
        """What was learned last: nothing more can be learned from it."""
        self._learns = costs is None
        self._most = limits.max_rows
        self._instances = instances
        # When a run ended or the first of several requests came: what runs, began after it.
        self._since = float("-inf")

    def learn(self, shape: Hashable, run: Execution, now: float) -> None:
        """Take in the run of an answer; answers of one run are told one after the other."""
        last, self.last = self.last, run
        if last is not None and same_run(last, run):
            return
        self._since = now
        if self._learns:
            self.costs.learn(shape, run.rows, run.gather + run.compute, now)

    def begin(self, now: float) -> None:
        """Note that a request came while there was none."""
        self._since = now

    def presses(self, slack: float, held: int) -> bool:
        """True if a request with so much time needs a closer look.

        Args:
            slack: seconds.
            held: rows that wait or run before it.
        """
        return slack < self.costs.longest * (held // self._most + 2)

    def quickest(self, shape: Hashable, rows: int, now: float) -> float:
        """Return the seconds of the quickest plausible run of a request; 0 in doubt."""
        known = self.costs.of(shape)
        return known.least(rows) if known.certain(now) else 0.0

    def expect(
        self,
        shape: Hashable,
        rows: int,
        held: Mapping[Hashable, int],
        others: int,
        part: float,
        now: float,
    ) -> Expected:
        """Forecast a request.

        Args:
            shape: of its rows.
            rows: how many.
            held: rows of this process that wait or run, by shape.
            others: rows that wait and are of other processes, in which they are held to be alike.
            part: of all those, that which goes before the request.
            now: monotonic seconds.
        """
        before = {other: int(count * part) for other, count in held.items()}
        wait = 0.0
        if sum(held.values()) + others < self._instances:
            before.clear()
        elif held:
            wait = self._until_free(held, before, now)
        same = before.pop(shape, 0) + int(others * part)
        costs, last = self.costs.of(shape), (same + rows - 1) % self._most + 1
        run = costs.typical(max(rows, last))
        wait += self._work(shape, same + rows) - costs.typical(last)
        wait += sum(self._work(other, count) for other, count in before.items())
        return Expected(max(0.0, wait) / self._instances, run)

    def _until_free(
        self, held: Mapping[Hashable, int], before: dict[Hashable, int], now: float
    ) -> float:
        """Return the seconds for which what runs now does so, and take it out of what waits.

        Nobody tells what runs: the dearest shape, of which most is over by now.
        """
        ends = {
            other: self.costs.of(other).typical(min(n, self._most)) for other, n in held.items()
        }
        shape = max(ends, key=lambda other: ends[other])
        before[shape] = max(0, before[shape] - self._most * self._instances)
        return max(0.0, ends[shape] - (now - self._since))

    def _work(self, shape: Hashable, rows: int) -> float:
        """Return the seconds of the runs that so many rows of one shape make."""
        costs, (full, rest) = self.costs.of(shape), divmod(rows, self._most)
        return full * costs.typical(self._most) + (costs.typical(rest) if rest else 0.0)


def same_run(one: Execution, other: Execution) -> bool:
    """True for copies: from another process each answer of a run brings one."""
    return (one.compute, one.gather, one.rows) == (other.compute, other.gather, other.rows)
