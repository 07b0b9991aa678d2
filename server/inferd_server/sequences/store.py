"""The states of all sequences of one model."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from inferd.tensors import Array
from inferd_engines.engine import EngineError

from inferd_server.errors import InferdError, SequenceNotFound, TooManySequences

State: TypeAlias = tuple[Array, ...]
"""One array for each state tensor, in the order of model.yaml."""


ANEW = "begin anew with sequence_start"
"""What to do about a sequence that ended."""


class SequenceRefused(EngineError):
    """A step cannot run; `error` is for its caller."""

    def __init__(self, error: InferdError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(slots=True)
class _Kept:
    state: State
    used: float


class Sequences:
    """What is remembered of each sequence, by its key. Any thread may call any method.

    The instances of a model share it; no two of them are at work on one sequence at a time.
    """

    def __init__(self, most: int, idle_s: float, clock: Callable[[], float]) -> None:
        """Remember nothing.

        Args:
            most: sequences at a time.
            idle_s: seconds of silence after which one is forgotten.
            clock: monotonic seconds.
        """
        self._most = most
        self._idle_s = idle_s
        self._clock = clock
        # The one that was silent for longest comes first.
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        # Those whose first step is running: there is room for them.
        self._starting: set[int] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._kept)

    @property
    def open(self) -> int:
        """How many may go on now."""
        with self._lock:
            now = self._clock()
            return sum(now - kept.used <= self._idle_s for kept in self._kept.values())

    def state(self, key: int) -> State:
        """Return what a sequence left.

        Raises:
            SequenceRefused: nothing is known of it.
        """
        with self._lock:
            self._expire()
            kept = self._kept.get(key)
        if kept is None:
            raise self._unknown()
        return kept.state

    @contextmanager
    def starting(self, keys: Set[int]) -> Iterator[None]:
        """Hold room for sequences while their first steps run.

        Raises:
            SequenceRefused: there would be too many.
        """
        with self._lock:
            self._expire()
            if len(self._starting | keys | self._kept.keys()) > self._most and keys:
                raise self._too_many()
            self._starting |= keys
        try:
            yield
        finally:
            with self._lock:
                self._starting -= keys

    def keep(self, key: int, state: State) -> None:
        """Remember what a step left."""
        with self._lock:
            self._kept[key] = _Kept(state, self._clock())
            self._kept.move_to_end(key)

    def forget(self, key: int) -> None:
        """End a sequence, if there is one."""
        with self._lock:
            self._kept.pop(key, None)

    def _unknown(self) -> SequenceRefused:
        return SequenceRefused(
            SequenceNotFound(
                "the sequence is not known: it never started, it ended, one of its requests "
                f"was not answered, or it was silent for {self._idle_s:g} s; {ANEW}"
            )
        )

    def _too_many(self) -> SequenceRefused:
        return SequenceRefused(
            TooManySequences(
                f"{self._most} sequences are open, as many as may be (max_sequences)",
                retry_after=self._idle_s,
            )
        )

    def _expire(self) -> None:
        now = self._clock()
        while self._kept:
            key, kept = next(iter(self._kept.items()))
            if now - kept.used <= self._idle_s:
                return
            del self._kept[key]
