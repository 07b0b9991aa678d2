"""The states of all sequences of one model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import TypeAlias

from inferd.tensors import Array
from inferd_engines.engine import EngineError

from inferd_server.errors import InferdError, SequenceNotFound, TooManySequences

State: TypeAlias = tuple[Array, ...]
"""One array for each state tensor, in the order of model.yaml."""


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
    """What is remembered of each sequence, by its key. Used by one thread."""

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

    def __len__(self) -> int:
        """How many there are."""
        return len(self._kept)

    @property
    def open(self) -> int:
        """How many may go on now; may be asked by any thread."""
        now = self._clock()
        # A list at once: the engine's thread may change the mapping meanwhile.
        return sum(now - kept.used <= self._idle_s for kept in list(self._kept.values()))

    def state(self, key: int) -> State:
        """Return what a sequence left.

        Raises:
            SequenceRefused: nothing is known of it.
        """
        self._expire()
        kept = self._kept.get(key)
        if kept is None:
            raise self.unknown()
        return kept.state

    def unknown(self) -> SequenceRefused:
        """Return why a step of a sequence that is not there cannot run."""
        return SequenceRefused(
            SequenceNotFound(
                "the sequence is not known: it never started, it ended, one of its requests "
                f"failed, or it was silent for {self._idle_s:g} s; begin anew with sequence_start"
            )
        )

    def check_room(self, starting: Set[int]) -> None:
        """See whether these sequences may start.

        Raises:
            SequenceRefused: there would be too many.
        """
        self._expire()
        if len(self._kept) + len(starting - self._kept.keys()) > self._most:
            raise SequenceRefused(
                TooManySequences(
                    f"{self._most} sequences are open, as many as may be (max_sequences)",
                    retry_after=self._idle_s,
                )
            )

    def keep(self, key: int, state: State) -> None:
        """Remember what a step left."""
        self._kept[key] = _Kept(state, self._clock())
        self._kept.move_to_end(key)

    def forget(self, key: int) -> None:
        """End a sequence, if there is one."""
        self._kept.pop(key, None)

    def _expire(self) -> None:
        now = self._clock()
        while self._kept:
            key, kept = next(iter(self._kept.items()))
            if now - kept.used <= self._idle_s:
                return
            del self._kept[key]
