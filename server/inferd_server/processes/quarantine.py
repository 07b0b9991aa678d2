"""Requests that ended a worker each time they ran: refused for a while, wherever they come in."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from inferd.tensors import BYTES, DATATYPES, Array, encode_bytes

from inferd_server.errors import InvalidInput

TEXT = DATATYPES[BYTES]
MOST = 1024
"""Fingerprints that are kept; the oldest go first."""
DIGEST_BYTES = 16


def fingerprint(model: str, version: int, inputs: Sequence[Array]) -> bytes:
    """Return what requests with the same inputs have in common, and all but surely no others.

    Args:
        model: its name.
        version: of the model.
        inputs: in the order of the signature.
    """
    digest = hashlib.blake2b(f"{model}\0{version}".encode(), digest_size=DIGEST_BYTES)
    for array in inputs:
        digest.update(f"\0{array.dtype.str}{array.shape}".encode())
        digest.update(encode_bytes(array) if array.dtype == TEXT else array.tobytes())
    return digest.digest()


class Quarantine:
    """Fingerprints, each until some time. Any thread may call any method."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        """Begin with none.

        Args:
            seconds: for which a request is refused.
            clock: monotonic seconds, the same in every process of the server.
        """
        self.active = False
        """False while there is none, so that looking costs nothing."""
        self._seconds = seconds
        self._clock = clock
        self._until: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, mark: bytes) -> float:
        """Refuse such requests from now on, and return until when."""
        until = self._clock() + self._seconds
        self.learn([(mark, until)])
        return until

    def learn(self, marks: Iterable[tuple[bytes, float]]) -> None:
        """Refuse what another process found: fingerprints, and until when."""
        with self._lock:
            for mark, until in marks:
                self._until[mark] = until
                self._until.move_to_end(mark)
            while len(self._until) > MOST:
                self._until.popitem(last=False)
            self._forget()

    def marks(self) -> list[tuple[bytes, float]]:
        """Return every fingerprint, and until when it is refused."""
        with self._lock:
            self._forget()
            return list(self._until.items())

    def refusal(self, model: str, version: int, inputs: Sequence[Array]) -> InvalidInput | None:
        """Return the error for a request that is not to run; None for any other."""
        if not self.active:
            return None
        mark = fingerprint(model, version, inputs)
        with self._lock:
            self._forget()
            until = self._until.get(mark)
        return None if until is None else quarantined(model, until - self._clock())

    def _forget(self) -> None:
        now = self._clock()
        for mark in [mark for mark, until in self._until.items() if until <= now]:
            del self._until[mark]
        self.active = bool(self._until)


def quarantined(model: str, seconds: float) -> InvalidInput:
    """Return the error for a request that ended a worker twice."""
    return InvalidInput(
        f"this very request ended the process of model {model!r} each time it ran; it is refused "
        f"for {max(1, round(seconds))} more seconds",
        reason="QUARANTINED",
        facts={"model": model, "retry_after_s": str(max(1, round(seconds)))},
    )
