"""How busy the engines are: the part of the last seconds for which they ran.

What may run at a time is a line: the instances of a model version, the models that take turns, the
one thread that runs all of them inline. The busiest line counts: a model whose one engine never
rests cannot serve more, however idle the others are.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from inferd_server.threads import Pauses

WINDOW_S = 10.0
"""What is told is true of so many seconds, or as long as there were any."""
TICK_S = 1.0

BusySeconds = Callable[[float], float]
"""Returns for how many seconds an engine, or a thread, was busy until now, in monotonic seconds."""


@dataclass(frozen=True, slots=True)
class BusyLine:
    """What shares a bound on how much of it is busy at a time."""

    bound: float
    members: Sequence[BusySeconds]


@dataclass(frozen=True, slots=True)
class Share:
    """What was busy of what could be; those of several processes add up."""

    busy: float
    """Seconds."""
    possible: float
    """Seconds."""


def ratio(shares: Mapping[str, Share]) -> float:
    """Return how busy the busiest line is, in 0..1; 0 where there is none."""
    found = [share.busy / share.possible for share in shares.values() if share.possible > 0]
    return min(1.0, max(found, default=0.0))


def add_shares(first: Share, second: Share) -> Share:
    """Return a line in two processes as one."""
    return Share(first.busy + second.busy, first.possible + second.possible)


class BusyWindow:
    """Looks at the lines every second, on a thread of its own, whoever asks for what it saw."""

    def __init__(
        self,
        lines: Callable[[], Mapping[str, BusyLine]],
        clock: Callable[[], float],
        told: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Prepare.

        Args:
            lines: returns those of now, by a name that other processes have for the same line.
            clock: monotonic seconds.
            told: gets the ratio after every look that comes by itself.
        """
        self._lines = lines
        self._told = told
        self._clock = clock
        self._looked = clock()
        # What each was busy for when it was looked at last.
        self._before: dict[BusySeconds, float] = {}
        # When, and what was seen since the time before.
        self._seen: deque[tuple[float, Mapping[str, Share]]] = deque()
        self._shares: Mapping[str, Share] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="busy", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()

    def look(self) -> None:
        """Note for how long each line was busy since the last look. One thread at a time."""
        now, lines, pause = self._clock(), self._lines(), Pauses()
        passed, self._looked = now - self._looked, now
        before, self._before = self._before, {}
        new = dict[str, Share]()
        for name, line in lines.items():
            new[name] = self._share(line, passed, before, now)
            pause()
        self._seen.append((now, new))
        while self._seen[0][0] <= now - WINDOW_S:
            self._seen.popleft()
        self._shares = self._added(new, pause)

    def shares(self) -> Mapping[str, Share]:
        """Return the lines of the last look, over the window. Any thread may call."""
        return self._shares

    def _added(self, lines: Iterable[str], pause: Callable[[], None]) -> Mapping[str, Share]:
        found = dict[str, Share]()
        for name in lines:
            seen = [shares[name] for _, shares in self._seen if name in shares]
            found[name] = Share(sum(s.busy for s in seen), sum(s.possible for s in seen))
            pause()
        return found

    def _share(
        self, line: BusyLine, passed: float, before: Mapping[BusySeconds, float], now: float
    ) -> Share:
        busy = {member: member(now) for member in line.members}
        self._before.update(busy)
        # Of what is new, nobody knows since when it was busy.
        known = busy.keys() & before.keys()
        possible = passed * line.bound if known else 0.0
        spent = sum(busy[member] - before[member] for member in known)
        # A run that ended while it was looked at is seen a moment too late.
        return Share(min(max(0.0, spent), possible), possible)

    def _watch(self) -> None:
        while not self._ended.wait(TICK_S):
            self.look()
            self._told(ratio(self.shares()))
