"""Fair shares of the engines of one process, by weight: start-time fair queueing.

Source: Goyal, Vin, Cheng, Start-Time Fair Queueing, SIGCOMM 1996.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Member:
    """One model version's share."""

    weight: float
    spent: float = 0.0
    """Seconds of its runs by weight, from where the others were when it came."""
    running: int = 0


class FairShare:
    """Lets so many models run at a time; who used least of its share goes next.

    Who did nothing for a while has saved nothing: it starts where the others are.
    """

    def __init__(self, concurrent: int) -> None:
        """Begin with nobody.

        Args:
            concurrent: models that may run at a time; 0: all.
        """
        self.concurrent = concurrent
        self._running = 0
        self._spent = 0.0
        self._waiting: list[Member] = []
        self._changed = threading.Condition()

    def take(self, member: Member) -> None:
        """Block until a member's turn comes. For a thread that has none."""
        if not self.concurrent:
            return
        with self._changed:
            if not member.running:
                member.spent = max(member.spent, self._spent)
            self._waiting.append(member)
            try:
                self._changed.wait_for(lambda: self._may_run(member))
            finally:
                self._waiting.remove(member)
            self._begin(member)

    def take_beside(self, member: Member) -> None:
        """Begin another run beside one of the same thread, within the turn that it has."""
        if not self.concurrent:
            return
        with self._changed:
            self._begin(member)

    def contended(self, member: Member) -> bool:
        """True if another member waits: who has a turn should let it end."""
        with self._changed:
            return self._others_wait(member)

    def give_back(self, member: Member, seconds: float) -> None:
        """End a run that took so long."""
        if not self.concurrent:
            return
        with self._changed:
            member.running -= 1
            member.spent += seconds / member.weight
            if not member.running:
                self._running -= 1
            self._changed.notify_all()

    def _begin(self, member: Member) -> None:
        if not member.running:
            self._running += 1
            self._spent = max(self._spent, member.spent)
        member.running += 1

    def _others_wait(self, member: Member) -> bool:
        return any(other is not member for other in self._waiting)

    def _may_run(self, member: Member) -> bool:
        if member.running:
            return not self._others_wait(member)
        if self._running >= self.concurrent:
            return False
        return all(member.spent <= other.spent for other in self._waiting if not other.running)


class Turn:
    """The turn of one engine, for one run of it or several that overlap. For its thread."""

    def __init__(self, share: FairShare, member: Member, clock: Callable[[], float]) -> None:
        """Begin without one.

        Args:
            share: of all models of this process.
            member: of the engine's model.
            clock: monotonic seconds.
        """
        self._share = share
        self._member = member
        self._clock = clock
        self._under_way = 0
        # Until here the engine's time is charged to runs that have ended.
        self._charged = 0.0

    def enter(self) -> None:
        """Begin a run: when its turn comes, or at once beside one that is under way."""
        if self._under_way:
            self._share.take_beside(self._member)
        else:
            self._share.take(self._member)
            self._charged = self._clock()
        self._under_way += 1

    def leave(self) -> None:
        """End a run; the turn ends with the last one that is under way."""
        self._under_way -= 1
        now = self._clock()
        self._share.give_back(self._member, now - self._charged)
        self._charged = now

    def contended(self) -> bool:
        """True if another model waits: no second run should begin."""
        return self._share.contended(self._member)
