"""Fair shares of the engines of one process, by weight: start-time fair queueing.

Source: Goyal, Vin, Cheng, Start-Time Fair Queueing, SIGCOMM 1996. A place that is kept for who
comes back at once: Iyer, Druschel, Anticipatory Scheduling, SOSP 2001.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

KEPT_S, KEPT_PART = 0.01, 0.5
"""Seconds, and part of its last run, for which a model's place is kept at most."""
MISSES = 3
"""Times in a row that a model came back too late, after which its place is not kept."""


@dataclass(slots=True, eq=False)
class Member:
    """One model version's share."""

    weight: float
    spent: float = 0.0
    """Seconds of its runs by weight, from where the others were when it came."""
    running: int = 0
    waiting: int = 0
    """Engines of it that wait for a turn."""
    ended: float = float("-inf")
    """When its last run ended, in monotonic seconds."""
    keeps: float = 0.0
    """Seconds from then on in which it should be back."""
    kept: float = float("-inf")
    """Until when it counts as waiting though no engine of it does, in monotonic seconds."""
    stays: bool = False
    """Requests waited for it when its last run ended, so that it never left the line."""
    misses: int = 0
    """Times in a row that it came back too late."""


class FairShare:
    """Lets so many models run at a time; who used least of its share goes next.

    Who did nothing for a while has saved nothing: it starts where the others are. Who has just
    ended a run is in line again: for sure if requests wait for it, and else for a moment if it
    tends to be back by then, as a model is whose callers send when they have their answers.
    """

    def __init__(self, concurrent: int, clock: Callable[[], float]) -> None:
        """Begin with nobody.

        Args:
            concurrent: models that may run at a time; 0: all.
            clock: monotonic seconds.
        """
        self.concurrent = concurrent
        self._clock = clock
        self._running = 0
        self._spent = 0.0
        # Those that wait, in the order in which they came, or whose place is kept.
        self._line: dict[Member, None] = {}
        self._changed = threading.Condition()

    def take(self, member: Member) -> None:
        """Block until a member's turn comes. For a thread that has none."""
        with self._changed:
            self.come(member)
            while not self.may_run(member, now := self._clock()):
                self._changed.wait(self._patience(now))
            self.begin(member)

    def take_beside(self, member: Member) -> None:
        """Begin another run beside one of the same thread, within the turn that it has."""
        with self._changed:
            member.running += 1

    def contended(self, member: Member) -> bool:
        """True if another member waits: who has a turn should let it end."""
        with self._changed:
            return self._others_wait(member)

    def give_back(self, member: Member, seconds: float, *, more: bool) -> None:
        """End a run.

        Args:
            member: whose.
            seconds: that it took.
            more: requests wait for its next one.
        """
        with self._changed:
            member.running -= 1
            member.spent += seconds / member.weight
            if not member.running:
                self._running -= 1
                self._end(member, seconds, more)
            self._changed.notify_all()

    def put_back(self, member: Member) -> None:
        """End a turn in which there was nothing to run."""
        with self._changed:
            member.running -= 1
            if not member.running:
                self._running -= 1
            self._changed.notify_all()

    def absent(self, member: Member) -> None:
        """Note that nothing waits for a member any more."""
        with self._changed:
            member.stays = False

    def come(self, member: Member) -> None:
        """Put a member in line; under the lock."""
        now = self._clock()
        if not (member.running or member.waiting or member.stays):
            late = now - member.ended > member.keeps
            member.misses = member.misses + 1 if late else 0
            if now > member.kept:
                member.spent = max(member.spent, self._spent)
        member.waiting += 1
        self._line.setdefault(member)

    def may_run(self, member: Member, now: float) -> bool:
        """True if a member in line may begin a run now, in monotonic seconds; under the lock."""
        if member.running:
            return not self._others_wait(member)
        return self._before(member, now) < self.concurrent - self._running

    def begin(self, member: Member) -> None:
        """Begin the run of a member in line; under the lock."""
        if not member.running:
            self._running += 1
            self._spent = max(self._spent, member.spent)
        member.running += 1
        member.waiting -= 1
        if not member.waiting:
            self._line.pop(member)
        member.stays = False

    def _end(self, member: Member, seconds: float, more: bool) -> None:
        """Keep the place of a member that runs no more, if it is expected back."""
        member.ended = self._clock()
        member.stays = more
        member.keeps = KEPT_S if more else min(KEPT_S, seconds * KEPT_PART)
        if more or member.misses < MISSES:
            member.kept = member.ended + member.keeps
            self._line.setdefault(member)

    def _before(self, member: Member, now: float) -> int:
        """Return how many of those that do not run go before a member."""
        count, passed = 0, False
        for other in self._line:
            if other is member:
                passed = True
            elif not other.running and (other.waiting or now < other.kept):
                earlier = other.spent == member.spent and not passed
                count += other.spent < member.spent or earlier
        return count

    def _patience(self, now: float) -> float | None:
        """Return the seconds until the first place is kept no more; None: none is."""
        kept = [other.kept - now for other in self._line if not other.waiting]
        return min([seconds for seconds in kept if seconds > 0], default=None)

    def _others_wait(self, member: Member) -> bool:
        return any(other.waiting for other in self._line if other is not member)


class Turn:
    """The turn of one engine, for one run of it or several that overlap. For its thread."""

    def __init__(
        self,
        share: FairShare,
        member: Member,
        clock: Callable[[], float],
        more: Callable[[], bool] = lambda: False,
    ) -> None:
        """Begin without one.

        Args:
            share: of all models of this process.
            member: of the engine's model.
            clock: monotonic seconds.
            more: returns True while requests wait for the model.
        """
        self._share = share
        self._member = member
        self._clock = clock
        self._more = more
        self._under_way = 0
        self.ready = False
        """True if a run may begin now."""
        # Until here the engine's time is charged to runs that have ended.
        self._charged = 0.0

    def enter(self) -> None:
        """Be ready for a run: when its turn comes, or at once beside one that is under way."""
        if self.ready:
            return
        if self._under_way:
            self._share.take_beside(self._member)
        else:
            self._share.take(self._member)
            self._charged = self._clock()
        self._under_way += 1
        self.ready = True

    def begin(self) -> None:
        """Begin the run that it is ready for."""
        assert self.ready
        self.ready = False

    def leave(self) -> None:
        """End a run; the turn ends with the last one that is under way."""
        self._under_way -= 1
        now = self._clock()
        self._share.give_back(self._member, now - self._charged, more=self._more())
        self._charged = now

    def let_go(self) -> None:
        """Have no turn: there is nothing to run."""
        if self.ready:
            self.ready = False
            self._under_way -= 1
            self._share.put_back(self._member)
        self._share.absent(self._member)

    def contended(self) -> bool:
        """True if another model waits: no second run should begin."""
        return self._share.contended(self._member)
