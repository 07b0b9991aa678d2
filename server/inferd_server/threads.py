"""Threads for what blocks, such as loading a model, and pauses of what takes long."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue

from inferd_server.errors import MemoryBudgetExceeded

MOST_CHANGES = 16
"""Calls that load models, and as many that unload some, that are at work or wait at a time."""
AT_ONCE_S, PAUSE_S = 0.0002, 0.0007
"""How long other threads wait for a long piece of work at most, and how long it lets them run:
Python would make them wait for 5 ms, and each of them several times for a request. The pause is
long enough for a small request, which is kept waiting once at most."""


class Pauses:
    """Lets other threads of this process run every so often during a long piece of work."""

    def __init__(self, seconds: float = PAUSE_S) -> None:
        """Begin, as after a pause; one has so many seconds."""
        self._seconds = seconds
        self._paused = time.perf_counter()

    def __call__(self) -> None:
        """Sleep a moment, if the last time was long enough ago."""
        if time.perf_counter() - self._paused > AT_ONCE_S:
            time.sleep(self._seconds)
            self._paused = time.perf_counter()


class BlockingThread:
    """Runs functions one after the other; they must not raise.

    A daemon, which `ThreadPoolExecutor` has no more: a load that takes minutes, or never
    ends, must not keep the process from ending.
    """

    def __init__(self, name: str = "blocking") -> None:
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._stopped = False
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)

    def start(self) -> None:
        """Begin to run what is submitted."""
        self._thread.start()

    def submit(self, function: Callable[[], None]) -> None:
        """Run a function soon; not at all once stopped."""
        self._work.put(function)

    def stop(self, timeout: float) -> bool:
        """Run nothing more, and give what runs now `timeout` seconds. True if it ended."""
        self._stopped = True
        self._work.put(lambda: None)
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _live(self) -> None:
        while True:
            function = self._work.get()
            if self._stopped:
                return
            function()
            # It may refer to a call, and the next one may come late.
            del function


class BlockingThreads:
    """Runs functions side by side, each on a thread of its own; they must not raise.

    Daemons, as above. There are none while there is nothing to do.
    """

    def __init__(self, most: int) -> None:
        """Run nothing yet; beyond `most` at a time functions wait for their turn."""
        self._most = most
        self._waiting: deque[Callable[[], None]] = deque()
        self._running = 0
        self._stopped = False
        self._changed = threading.Condition()

    def submit(self, function: Callable[[], None]) -> None:
        """Run a function soon; not at all once stopped."""
        with self._changed:
            self._waiting.append(function)
            if self._stopped or self._running >= self._most:
                return
            self._running += 1
        threading.Thread(target=self._live, name="blocking", daemon=True).start()

    def stop(self, timeout: float) -> bool:
        """Run nothing more, and give what runs now `timeout` seconds. True if it ended."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            return self._changed.wait_for(lambda: not self._running, timeout)

    def _live(self) -> None:
        while (function := self._next()) is not None:
            function()
            # It may refer to a call, and the next one may come late.
            del function

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            if self._waiting and not self._stopped:
                return self._waiting.popleft()
            self._running -= 1
            self._changed.notify_all()
            return None


def after(seconds: float, task: Callable[[], None]) -> None:
    """Call a function later, on a thread of its own that keeps no process from ending."""
    timer = threading.Timer(seconds, task)
    timer.daemon = True
    timer.start()


MOST_BYTES = 256 * 2**20
"""Of what waits for the thread."""
ROOM = 4
"""When this part of it waits, nothing waits for company any more."""


class SideThread:
    """A thread that does one thing after the other, begun with the first. Any thread may call."""

    def __init__(
        self, name: str, waits: str, most: int = MOST_BYTES, together: float = 0.0
    ) -> None:
        """Wait for nothing yet.

        Args:
            name: of the thread.
            waits: what waits for it, in words, such as "outputs wait to be classified".
            most: bytes that may wait.
            together: seconds for which the first thing waits for others: each time that the thread
                wakes, the others of the process wait for Python's lock.
        """
        self._name = name
        self._waits = waits
        self._most = most
        self._together = together
        self._hurried = threading.Event()
        self._held = 0
        self._thread: BlockingThread | None = None
        self._lock = threading.Lock()

    @property
    def busy(self) -> bool:
        """True while something is done, or waits."""
        return self._held > 0

    def submit(self, nbytes: int, work: Callable[[], None]) -> None:
        """Do something soon.

        Args:
            nbytes: that it holds until then.
            work: must not raise.

        Raises:
            MemoryBudgetExceeded: too much waits already.
        """
        with self._lock:
            if self._held and self._held + nbytes > self._most:
                raise MemoryBudgetExceeded(f"{self._held} bytes of {self._waits}; {self._most} may")
            if self._thread is None:
                self._thread = BlockingThread(self._name)
                self._thread.start()
            if self._together and not self._held:
                self._thread.submit(self._pause)
            self._held += nbytes
            self._thread.submit(partial(self._do, nbytes, work))
            if self._held > self._most // ROOM:
                self._hurried.set()

    def hurry(self) -> None:
        """Let nothing wait for company any longer."""
        self._hurried.set()

    def _pause(self) -> None:
        self._hurried.wait(self._together)
        self._hurried.clear()

    def _do(self, nbytes: int, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            with self._lock:
                self._held -= nbytes
