"""What becomes of a request whose worker died."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from inferd_server.processes.link.pending import History, Lost
from inferd_server.processes.retry import SENDS, START_S, Fate, fate

NOW = 100.0


def lost(
    sent: int = 1,
    begun: int = 1,
    deadline: float | None = None,
    cancelled: bool = False,
    sequence: int = 0,
) -> Lost:
    job = SimpleNamespace(deadline=deadline, cancelled=cancelled, sequence=sequence)
    return Lost(job, SimpleNamespace(), History(sent, begun))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "wait_s", "expected"),
    [
        (lost(begun=0), 10.0, Fate.RETRY),
        (lost(begun=1), 10.0, Fate.RETRY),
        (lost(begun=1), 0.0, Fate.LOST),
        (lost(begun=2), 10.0, Fate.POISON),
        # Known to be poison, whoever still waits for it.
        (lost(begun=2, cancelled=True), 10.0, Fate.POISON),
        (lost(begun=2, deadline=NOW), 0.0, Fate.POISON),
        (lost(cancelled=True), 10.0, Fate.CANCELLED),
        (lost(deadline=NOW), 10.0, Fate.EXPIRED),
        (lost(deadline=NOW + START_S / 2), 10.0, Fate.LOST),
        (lost(deadline=NOW + START_S), 10.0, Fate.RETRY),
        (lost(begun=0, sequence=1), 10.0, Fate.STATELESS),
        (lost(sequence=1), 0.0, Fate.STATELESS),
        (lost(sequence=1, deadline=NOW), 10.0, Fate.EXPIRED),
        (lost(sent=SENDS - 1, begun=0), 10.0, Fate.RETRY),
        (lost(sent=SENDS, begun=0), 10.0, Fate.LOST),
    ],
)
def test_a_request_is_sent_again_if_that_may_help(
    request_: Lost, wait_s: float, expected: Fate
) -> None:
    assert fate(request_, NOW, wait_s) is expected
