"""The child processes and their links: decided under one lock, done outside it."""

from __future__ import annotations

import logging
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

from inferd_server.errors import InferdError
from inferd_server.processes import messages
from inferd_server.processes.channel import answers
from inferd_server.processes.links import Links, Pair
from inferd_server.processes.policy import LIMIT, cause, restart_delay
from inferd_server.processes.spawn import FRONT, REPLICA, WORKER, Child, name_of
from inferd_server.threads import BlockingThread, after

log = logging.getLogger(__name__)
Spawn = Callable[[str, int], Child]
CLOSE_S = 3.0
"""Seconds that processes get to end once they have nothing to do."""
OUTPUT_S = 0.5
"""Seconds for what a process wrote before its end; others may still have its standard error."""
OWN_END_S = 1.0
"""Seconds that a process gets to end that closed its connection, which tells why it did."""
ANSWER_S = 5.0
"""Seconds that a process gets to do what takes milliseconds."""
WORKER_LOST = "the worker process was lost; a new one starts"


@dataclass(frozen=True, slots=True)
class Events:
    """What is called as processes come, speak and go."""

    spawn: Spawn
    """Starts the process of a role and index."""
    handle: Callable[[Child, object], object]
    """Gets what a child tells or asks."""
    changed: Callable[[], None]
    """Called after a process came or went."""
    died: Callable[[Child, int | None], None]
    """Called when a process is gone, before anything else is done about it, with its exit code;
    None where the reason is known."""
    gave_up: Callable[[str, int, str], None]
    """Called with role, index and the reason if a process cannot be kept running."""
    limit: Callable[[str], int] = lambda _role: LIMIT
    """Returns how many starts in a row of a process of a role may fail."""


class Children:
    """The workers and the fronts, or the replicas: started, joined, and started again.

    Any thread may call.
    """

    def __init__(
        self,
        links: Links,
        lock: AbstractContextManager[object],
        events: Events,
        later: Callable[[float, Callable[[], None]], None] = after,
        replicas: int = 0,
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            links: between fronts and workers; none where there are replicas.
            lock: may be taken again by whoever has it.
            events: called as processes come, speak and go.
            later: calls a function after some seconds, on another thread.
            replicas: how many, instead of workers and fronts.
        """
        self._role, self._count = (REPLICA, replicas) if replicas else (FRONT, links.fronts)
        self._links = links
        self._events = events
        self._later = later
        self.workers: dict[int, Child] = {}
        # The processes that take calls.
        self.endpoints: dict[int, Child] = {}
        self.restarts: Counter[str] = Counter()
        self.worker_restarts: Counter[int] = Counter()
        self._failures: Counter[str] = Counter()
        # Why processes end that were told to, or that said so, as far as it is known.
        self._reasons: dict[Child, str] = {}
        self._useful: set[Child] = set()
        # A link is clean once neither side remembers anything of it.
        self._clean: set[Pair] = set(links.pairs)
        self._attached: set[Pair] = set()
        self._stopping = False
        # WorkerGone of a worker that a front was told and has not answered yet.
        self._owed: Counter[tuple[Child, int]] = Counter()
        self._lock = lock
        self._starter = BlockingThread()

    @property
    def serving(self) -> bool:
        """True while a worker serves at least one front that listens."""
        with self._lock:
            listening = {index for index, child in self.endpoints.items() if child in self._useful}
            return any(front in listening for front, _ in self._attached)

    def start(self) -> None:
        """Start every process."""
        self._starter.start()
        for index in range(self._links.workers if self._role == FRONT else 0):
            self._starter.submit(partial(self._begin, WORKER, index))
        for index in range(self._count):
            self._starter.submit(partial(self._begin, self._role, index))

    def kill(self, child: Child, why: str) -> None:
        """End a process that is of no use any more; another one follows."""
        log.error("killed", extra={"child": child.name, "why": why})
        self.ending(child, f"killed by the server: {why}")
        child.process.kill()

    def ending(self, child: Child, why: str) -> None:
        """Note why a process ends, of which its exit code would say less."""
        with self._lock:
            self._reasons.setdefault(child, why)

    def useful(self, child: Child) -> None:
        """Note that a process does its work: what ended before it is forgiven."""
        with self._lock:
            self._useful.add(child)
            self._failures[child.name] = 0

    def forgive(self, name: str) -> None:
        """Forget how often a process ended in a row: the next one does not do the same again."""
        with self._lock:
            self._failures[name] = 0

    def disconnected(self, child: Child, worker: int) -> None:
        """Note that a front has forgotten a worker that died."""
        with self._lock:
            self._owed[child, worker] -= 1
            if self.endpoints.get(child.index) is child and not self._owed[child, worker]:
                self._clean.add((child.index, worker))
                self._join(child.index, worker)
        self._events.changed()

    def failures(self, name: str) -> int:
        """Return how often in a row a process ended before it was of any use."""
        with self._lock:
            return self._failures[name]

    def live_endpoints(self) -> list[Child]:
        """Return the processes that take calls, and live."""
        with self._lock:
            return list(self.endpoints.values())

    def everyone(self) -> list[Child]:
        """Return all processes that live."""
        with self._lock:
            return [*self.endpoints.values(), *self.workers.values()]

    def live_workers(self) -> list[Child]:
        """Return the workers that live, by their index."""
        with self._lock:
            return [self.workers[index] for index in sorted(self.workers)]

    def catch_up(self) -> bool:
        """Wait until every process that takes calls knows what it was told; False: one is slow."""
        asked = [child.channel.ask(messages.Caught()) for child in self.live_endpoints()]
        answers(asked, ANSWER_S)
        return all(future.done() for future in asked)

    def stop(self) -> None:
        """Start nothing any more."""
        with self._lock:
            self._stopping = True

    def end(self, silent: Callable[[Child], bool] = lambda _: False) -> None:
        """Let every process end, which it does when its connection does; the rest is killed.

        Args:
            silent: tells of a process whether it answers nothing, and gets no time.
        """
        for child in self.everyone():
            child.channel.close()
        for child in self.everyone():
            try:
                child.process.wait(0 if silent(child) else CLOSE_S)
            except subprocess.TimeoutExpired:
                log.warning("killed", extra={"child": child.name, "pid": child.process.pid})
                child.process.kill()
                child.process.wait()
            if child.output is not None:
                child.output.wait(OUTPUT_S)

    def _begin(self, role: str, index: int) -> None:
        with self._lock:
            if self._stopping:
                return
            try:
                child = self._events.spawn(role, index)
            except OSError as error:
                log.error("cannot start", extra={"child": role, "error": str(error)})
                self._again(role, index, str(error))
                return
            (self.workers if role == WORKER else self.endpoints)[index] = child
            for link in self._links.pairs:
                self._join(*link)
        log.info("started", extra={"child": child.name, "pid": child.process.pid})
        threading.Thread(target=self._follow, args=(child,), name=child.name, daemon=True).start()
        self._events.changed()

    def _join(self, front: int, worker: int) -> None:
        """Let a worker serve a front, if both live and the link is clean."""
        link = front, worker
        if worker in self.workers and front in self.endpoints and link in self._clean:
            self._clean.discard(link)
            self._attached.add(link)
            self.workers[worker].channel.tell(messages.Attach(front))

    def _follow(self, child: Child) -> None:
        """Read what a child says until it is gone, and see to what follows."""
        child.channel.read(lambda message: self._events.handle(child, message))
        with self._lock:
            stopping = self._stopping
        code = child.process.wait() if stopping else self._ended(child)
        child.channel.close()
        if child.output is not None:
            child.output.wait(OUTPUT_S)
        with self._lock:
            known = self._reasons.pop(child, None)
            why = known or cause(code)
            if self._stopping:
                return
            self.restarts[child.role] += 1
            self.worker_restarts[child.index] += child.role == WORKER
            self._useful.discard(child)
        where = {"child": child.name, "pid": child.process.pid, "code": code}
        log.error("lost", extra={**where, "cause": why})
        unexplained = code if known is None else None
        if child.role == WORKER:
            self._worker_lost(child, unexplained)
        else:
            self._endpoint_lost(child, unexplained)
        self._again(child.role, child.index, why)

    def _ended(self, child: Child) -> int:
        """Wait for the end of a process that cannot be talked to any more: its own, or ours."""
        try:
            return child.process.wait(OWN_END_S)
        except subprocess.TimeoutExpired:
            self.ending(child, "killed by the server: it closed its connection, and went on")
            child.process.kill()
            return child.process.wait()

    def _worker_lost(self, worker: Child, code: int | None) -> None:
        with self._lock:
            del self.workers[worker.index]
            lost = {link for link in self._links.pairs if link[1] == worker.index}
            self._attached -= lost
            # A link without a front is begun anew with its next one.
            self._clean -= {link for link in lost if link[0] in self.endpoints}
            for front in self.endpoints.values():
                self._owed[front, worker.index] += 1
                front.channel.tell(messages.WorkerGone(WORKER_LOST, worker.index))
            # Before any other front starts, which is told of the models there are.
            self._events.died(worker, code)
        self._events.changed()

    def _endpoint_lost(self, child: Child, code: int | None) -> None:
        front = child.index
        with self._lock:
            del self.endpoints[front]
            for owed in [owed for owed in self._owed if owed[0] is child]:
                del self._owed[owed]
            workers = [
                worker for index, worker in self.workers.items() if (front, index) in self._attached
            ]
        self._events.died(child, code)
        self._events.changed()
        for worker in workers:
            self._detach(worker, front)
        if child.role == REPLICA:
            return
        with self._lock:
            own = {link for link in self._links.pairs if link[0] == front}
            self._attached -= own
            self._links.reset(front)
            self._clean |= own

    def _detach(self, worker: Child, front: int) -> None:
        try:
            worker.channel.ask(messages.Detach(front)).result()
        except InferdError:
            # The worker is gone as well, and touches nothing.
            log.info("not detached", extra={"front": front, "worker": worker.name})

    def _again(self, role: str, index: int, why: str) -> None:
        name = name_of(role, index, self._links.workers == 1)
        with self._lock:
            self._failures[name] += 1
            failures = self._failures[name]
        delay = restart_delay(failures, self._events.limit(role))
        if delay is None:
            text = f"{name} ended {failures} times before it was of any use: {why}"
            self._events.gave_up(role, index, text)
            return
        if delay:
            log.warning("restarting", extra={"child": name, "delay_s": delay})
        # By the thread that lasts: a child ends with the thread that started it (prctl(2)).
        self._later(delay, partial(self._starter.submit, partial(self._begin, role, index)))
