"""Answers requests from what is known, or lets one of those that are equal run for all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

from inferd.tensors import Buffer

from inferd_server.batching.timers import Timers
from inferd_server.cache.answers import Answers
from inferd_server.cache.flight import Admit, Asker, Flights
from inferd_server.cache.key import Form, Owner
from inferd_server.cache.lead import Lead
from inferd_server.cache.lookup import Stored
from inferd_server.cache.remote import Remote
from inferd_server.cache.store import CachedAnswer, Store
from inferd_server.errors import Cancelled, DeadlinePassed, InferdError, WouldBeLate
from inferd_server.monitoring.series import HIT, MERGED, MISS, SHARED_HIT
from inferd_server.transport.call import Call

GONE = "the caller went away while the request waited for an equal one"
LATE = "the deadline passed while the request waited for an equal one"


class ResponseCache:
    """The cache of one process. Every method may be called from any thread, and never blocks."""

    def __init__(
        self,
        store: Store,
        flights: Flights,
        alarms: Timers,
        remote: Remote | None,
        answers: Answers,
        clock: Callable[[], float],
    ) -> None:
        """Put the parts together.

        Args:
            store: of answers, empty.
            flights: none yet.
            alarms: ring at the deadlines of those who wait.
            remote: what servers share; None for nothing.
            answers: sends and counts.
            clock: monotonic seconds.
        """
        self._store = store
        self._flights = flights
        self._alarms = alarms
        self._remote = remote
        self._answers = answers
        self._clock = clock

    def enter(
        self,
        call: Call,
        identity: bytes,
        form: Form,
        elements: Iterable[Buffer],
        started: float,
        attempt: int,
        admit: Admit,
    ) -> Lead | None:
        """Return the call to go on with; None if this one is, or will be, seen to.

        Args:
            call: of a checked request, or a `Lead` that is admitted anew.
            identity: the request's id as a field of the response.
            form: of the request.
            elements: of its inputs, in the order of the signature.
            started: when it arrived, in monotonic seconds.
            attempt: which one this is.
            admit: admits a call that was seen to here and turned out to have to run.

        Raises:
            QueueFull: too many wait for equal requests.
        """
        begun = self._clock()
        key = form.base.key(elements)
        if isinstance(call, Lead):
            if call.asker.key == key:
                return call
            call = self.dismiss(call)
        asker = Asker(call, identity, form, key, started, attempt, admit)
        value = self._store.get(key, begun)
        if value is not None:
            self._hit(asker, value, HIT)
            return None
        if not self._flights.join(asker):
            self._follow(asker)
            return None
        return self._first(asker, begun)

    def dismiss(self, lead: Lead) -> Call:
        """Return the plain call of a leader whose model was replaced.

        Its followers asked for another answer than it will get: they ask again, for themselves.
        """
        self._part(lead.asker)
        return lead.asker.call

    def retain(self, owners: Collection[Owner]) -> None:
        """Drop the answers of all model versions but these."""
        self._store.retain(owners)

    def gauges(self) -> Mapping[str, float]:
        """Return what /metrics tells of this moment."""
        gauges: dict[str, float] = {
            "inferd_cache_bytes": self._store.nbytes,
            "inferd_cache_entries": len(self._store),
            "inferd_cache_waiting_requests": self._flights.waiting,
        }
        if self._remote is not None:
            gauges["inferd_cache_redis_available"] = self._remote.available
        return gauges

    def close(self) -> None:
        """Let threads and connections go."""
        if self._remote is not None:
            self._remote.close()
        self._alarms.close()

    def keep(self, leader: Asker, value: bytes) -> None:
        """Keep an answer here, and where other servers find it."""
        ttl = leader.form.ttl
        self._put(leader, value, ttl)
        if self._remote is not None:
            self._remote.store(leader.key, value, ttl)

    def share(self, leader: Asker, value: bytes) -> None:
        """Give an answer to everybody who waits for it."""
        for follower in self._flights.land(leader):
            self._answers.give(follower, value, MERGED)

    def failed(self, leader: Asker, error: InferdError) -> None:
        """Let another one lead if the leader alone could not wait; else this is the answer."""
        if isinstance(error, Cancelled | DeadlinePassed):
            self._succeed(leader)
            return
        if isinstance(error, WouldBeLate):
            # For the leader, whose deadline is not the others'.
            self._part(leader)
            return
        for follower in self._flights.land(leader):
            self._answers.refuse(follower, error)

    def _part(self, leader: Asker) -> None:
        """Let all who follow ask again, one after the other: the first that can wait leads."""
        for follower in self._flights.land(leader):
            self._answers.release(follower)
            follower.admit(follower.call, follower.started, follower.attempt)

    def _first(self, asker: Asker, begun: float) -> Lead | None:
        """Return the call of a new leader, unless its answer is found after all."""
        value = self._store.get(asker.key, begun)
        if value is not None:
            # The flight before this one landed since it was looked for.
            self._hit(asker, value, HIT)
            self.share(asker, value)
            return None
        if self._remote is not None and self._remote.lookup(
            asker.key, asker.form.owner, partial(self._looked_up, asker, begun)
        ):
            return None
        return self._missed(asker, begun)

    def _looked_up(self, asker: Asker, begun: float, found: Stored | None) -> None:
        if found is None:
            asker.admit(self._missed(asker, begun), asker.started, asker.attempt)
            return
        self._put(asker, found.data, min(found.ttl, asker.form.ttl))
        self._hit(asker, found.data, SHARED_HIT)
        self.share(asker, found.data)

    def _missed(self, asker: Asker, begun: float) -> Lead:
        asker.form.series.cached(MISS)
        asker.form.statistics.missed(self._clock() - begun)
        return Lead(asker, self)

    def _put(self, asker: Asker, value: bytes, ttl: float) -> None:
        form = asker.form
        entry = CachedAnswer(form.owner, value, self._clock() + ttl)
        self._store.put(asker.key, entry, form.max_bytes)

    def _hit(self, asker: Asker, value: bytes, kind: str) -> None:
        asker.form.series.admitted()
        self._answers.give(asker, value, kind)

    def _follow(self, asker: Asker) -> None:
        asker.form.series.admitted()
        deadline = asker.call.deadline
        if deadline is not None:
            leave = partial(self._leave, asker, DeadlinePassed, LATE)
            asker.alarm = self._alarms.at(deadline, leave)
            if not self._flights.follows(asker):
                # Answered since: nobody else knew of the alarm.
                asker.alarm.cancel()
        asker.call.on_cancel(partial(self._leave, asker, Cancelled, GONE))

    def _leave(self, asker: Asker, kind: type[InferdError], why: str) -> None:
        if self._flights.leave(asker):
            self._answers.refuse(asker, kind(why))

    def _succeed(self, leader: Asker) -> None:
        """Let the next one lead who still waits."""
        # A loop: admitting those who cannot wait any more would end here again, one in the other.
        while (heir := self._flights.succeed(leader)) is not None:
            deadline = heir.call.deadline
            if heir.call.cancelled:
                self._answers.refuse(heir, Cancelled(GONE))
            elif deadline is not None and self._clock() >= deadline:
                self._answers.refuse(heir, DeadlinePassed(LATE))
            else:
                self._answers.release(heir)
                heir.admit(self._missed(heir, self._clock()), heir.started, heir.attempt)
                return
            leader = heir
