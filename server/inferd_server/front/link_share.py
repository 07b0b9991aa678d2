"""The part of a link that one stream may have: the rest of its requests stay with the front.

The worker takes requests in order of arrival and knows of no streams. What a stream may have there
is what it may have in a queue of one process (`stream_share`), for each model version.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from inferd_server.errors import HandleRetired
from inferd_server.scheduler.job import Job
from inferd_server.scheduler.stream_share import StreamShares


class LinkShare:
    """Requests of streams on their way to one model version. Any thread may call any method."""

    def __init__(self, send: Callable[[Job], bool], max_rows: int) -> None:
        """Begin with none.

        Args:
            send: a request to the worker; False once its model is closed.
            max_rows: rows in one batch.
        """
        self._send = send
        self._max_rows = max_rows
        self._shares: StreamShares[Job] = StreamShares()
        # What counts for its stream until it is answered.
        self._sent: dict[int, Job] = {}
        self._open = True
        self._lock = threading.Lock()

    @property
    def behind(self) -> int:
        """Requests that stay here."""
        return self._shares.behind

    def submit(self, job: Job) -> bool:
        """Send a request, or keep it until it is its turn; False once the model is closed."""
        with self._lock:
            if self._open:
                if not self._shares.admit(job, self._max_rows):
                    return True
                self._sent[id(job)] = job
        sent = self._send(job)
        if not sent or job.answered:
            # It was refused, and the worker will not answer it.
            self.left(job)
        return sent

    def withdraw(self, job: Job) -> bool:
        """Take out a request that stays here; False if it does not."""
        with self._lock:
            return self._shares.withdraw(job)

    def left(self, job: Job) -> None:
        """Send what waited for a request that the worker has answered; nothing the second time."""
        ended = deque([job])
        while ended:
            for one in self._following(ended.popleft()):
                if not self._send(one):
                    # It is admitted anew.
                    one.fail(HandleRetired("the model was replaced before the request ran"))
                if one.answered:
                    ended.append(one)

    def close(self) -> list[Job]:
        """Keep nothing from now on; return what stayed here until now."""
        with self._lock:
            self._open = False
            self._sent.clear()
            return self._shares.drain()

    def _following(self, job: Job) -> list[Job]:
        """Return what may be sent once a request has left."""
        with self._lock:
            if self._sent.pop(id(job), None) is None:
                return []
            following = list(self._shares.leave(job, self._max_rows))
            self._sent.update((id(one), one) for one in following)
            return following
