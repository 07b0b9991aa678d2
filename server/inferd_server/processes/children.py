"""The child processes and their links: decided under one lock, done outside it."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from inferd_server.errors import InferdError
from inferd_server.processes import messages
from inferd_server.processes.link.layout import Layout
from inferd_server.processes.link.memory import LinkMemory, create
from inferd_server.processes.messages import ProcessPlace
from inferd_server.processes.policy import cause, restart_delay
from inferd_server.processes.spawn import FRONT, REPLICA, WORKER, Child, name_of
from inferd_server.settings.model import Settings
from inferd_server.threads import BlockingThread, after

log = logging.getLogger(__name__)
Spawn = Callable[[str, int], Child]
CLOSE_S = 3.0
"""Seconds that processes get to end once they have nothing to do."""
OUTPUT_S = 0.5
"""Seconds for what a process wrote before its end; others may still have its standard error."""
OWN_END_S = 1.0
"""Seconds that a process gets to end that closed its connection, which tells why it did."""
WORKER_LOST = "the worker process was lost; a new one starts"


class Children:
    """The worker and the fronts, or the replicas: started, joined, and started again.

    Any thread may call.
    """

    def __init__(
        self,
        links: Links,
        lock: AbstractContextManager[object],
        spawn: Spawn,
        handle: Callable[[Child, object], object],
        changed: Callable[[], None],
        died: Callable[[Child, int | None], None],
        gave_up: Callable[[str], None],
        later: Callable[[float, Callable[[], None]], None] = after,
        replicas: int = 0,
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            links: one for each front; none where there are replicas.
            lock: may be taken again by whoever has it.
            spawn: starts the process of a role and index.
            handle: gets what a child tells or asks.
            changed: called after a process came or went.
            died: called when a process is gone, before anything else is done about it, with its
                exit code; None where the reason is known.
            gave_up: called with the reason if a process cannot be kept running.
            later: calls a function after some seconds, on another thread.
            replicas: how many, instead of a worker and fronts.
        """
        self._role, self._count = (REPLICA, replicas) if replicas else (FRONT, links.count)
        self._links = links
        self._spawn = spawn
        self._handle = handle
        self._changed = changed
        self._died = died
        self._gave_up = gave_up
        self._later = later
        self.worker: Child | None = None
        # The processes that take calls.
        self.endpoints: dict[int, Child] = {}
        self.restarts: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        # Why processes end that were told to, or that said so, as far as it is known.
        self._reasons: dict[Child, str] = {}
        self._useful: set[Child] = set()
        # A link is clean once neither side remembers anything of it.
        self._clean = set(range(links.count))
        self._attached: set[int] = set()
        self._stopping = False
        # WorkerGone that a front was told and has not answered yet.
        self._owed: Counter[Child] = Counter()
        self._lock = lock
        self._starter = BlockingThread()

    @property
    def serving(self) -> bool:
        """True while the worker serves at least one front that listens."""
        with self._lock:
            listening = {index for index, child in self.endpoints.items() if child in self._useful}
            return self.worker is not None and bool(listening & self._attached)

    def start(self) -> None:
        """Start every process."""
        self._starter.start()
        if self._role == FRONT:
            self._starter.submit(partial(self._begin, WORKER, 0))
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

    def disconnected(self, child: Child) -> None:
        """Note that a front has forgotten the worker that died."""
        with self._lock:
            self._owed[child] -= 1
            if self.endpoints.get(child.index) is child and not self._owed[child]:
                self._clean.add(child.index)
                self._join(child.index)
        self._changed()

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
            return [*self.endpoints.values(), *([self.worker] if self.worker else [])]

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
                child = self._spawn(role, index)
            except OSError as error:
                log.error("cannot start", extra={"child": role, "error": str(error)})
                self._again(role, index, str(error))
                return
            if role == WORKER:
                self.worker = child
            else:
                self.endpoints[index] = child
            for link in range(self._links.count):
                self._join(link)
        log.info("started", extra={"child": child.name, "pid": child.process.pid})
        threading.Thread(target=self._follow, args=(child,), name=child.name, daemon=True).start()
        self._changed()

    def _join(self, link: int) -> None:
        """Let the worker serve a front, if both live and the link is clean."""
        if self.worker is not None and link in self.endpoints and link in self._clean:
            self._clean.discard(link)
            self._attached.add(link)
            self.worker.channel.tell(messages.Attach(link))

    def _follow(self, child: Child) -> None:
        """Read what a child says until it is gone, and see to what follows."""
        child.channel.read(lambda message: self._handle(child, message))
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
            self._useful.discard(child)
        where = {"child": child.name, "pid": child.process.pid, "code": code}
        log.error("lost", extra={**where, "cause": why})
        unexplained = code if known is None else None
        if child.role == WORKER:
            self._worker_lost(unexplained)
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

    def _worker_lost(self, code: int | None) -> None:
        with self._lock:
            worker, self.worker = self.worker, None
            self._attached.clear()
            # A link without a front is begun anew with its next one.
            self._clean -= set(self.endpoints)
            for front in self.endpoints.values():
                self._owed[front] += 1
                front.channel.tell(messages.WorkerGone(WORKER_LOST))
            if worker is not None:
                # Before any other front starts, which is told of the models there are.
                self._died(worker, code)
        self._changed()

    def _endpoint_lost(self, child: Child, code: int | None) -> None:
        with self._lock:
            del self.endpoints[child.index]
            del self._owed[child]
            worker = self.worker if child.index in self._attached else None
        self._died(child, code)
        self._changed()
        if worker is not None:
            self._detach(worker, child.index)
        if child.role == REPLICA:
            return
        with self._lock:
            self._attached.discard(child.index)
            self._links.reset(child.index)
            self._clean.add(child.index)

    def _detach(self, worker: Child, link: int) -> None:
        try:
            worker.channel.ask(messages.Detach(link)).result()
        except InferdError:
            # The worker is gone as well, and touches nothing.
            log.info("not detached", extra={"link": link})

    def _again(self, role: str, index: int, why: str) -> None:
        name = name_of(role, index)
        with self._lock:
            self._failures[name] += 1
            failures = self._failures[name]
        delay = restart_delay(failures)
        if delay is None:
            self._gave_up(f"{name} ended {failures} times before it was of any use: {why}")
            return
        if delay:
            log.warning("restarting", extra={"child": name, "delay_s": delay})
        # By the thread that lasts: a child ends with the thread that started it (prctl(2)).
        self._later(delay, partial(self._starter.submit, partial(self._begin, role, index)))


class Links:
    """Shared memory between every front and the worker; freed with the last process."""

    def __init__(self, count: int, layout: Layout) -> None:
        self.count = count
        self._layout = layout
        self._memories = tuple(create(layout) for _ in range(count))
        self._mapped = [LinkMemory(memory, layout) for memory in self._memories]
        self._wake_fronts = tuple(os.eventfd(0, os.EFD_NONBLOCK) for _ in range(count))
        # Not blocking: several threads of the worker may read what one of them was woken for.
        self._wake_worker = os.eventfd(0, os.EFD_NONBLOCK)

    def reset(self, link: int) -> None:
        """Begin a link anew; neither front nor worker may be at work on it."""
        self._mapped[link].reset()

    def for_worker(self, settings: Settings, address: str) -> tuple[ProcessPlace, tuple[int, ...]]:
        """Return the worker's place, and the descriptors to inherit."""
        place = ProcessPlace(
            settings,
            0,
            self._layout,
            self._memories,
            self._wake_fronts,
            self._wake_worker,
            address,
        )
        return place, (*self._memories, *self._wake_fronts, self._wake_worker)

    def for_front(
        self, link: int, settings: Settings, address: str, probe_address: str = ""
    ) -> tuple[ProcessPlace, tuple[int, ...]]:
        """Return a front's place, and the descriptors to inherit."""
        memory, wake = self._memories[link], self._wake_fronts[link]
        memories, wakes = (memory,), (wake,)
        place = ProcessPlace(
            settings,
            link,
            self._layout,
            memories,
            wakes,
            self._wake_worker,
            address,
            probe_address=probe_address,
        )
        return place, (memory, wake, self._wake_worker)

    def for_replica(self, index: int, settings: Settings, address: str, probe: str) -> ProcessPlace:
        """Return the place of a replica, which has no link and inherits nothing."""
        wake = self._wake_worker
        return ProcessPlace(
            settings, index, self._layout, (), (), wake, address, probe_address=probe
        )
