"""A batch that used up the memory: the next worker knows its bound before it serves anybody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from inferd_server.control import messages
from inferd_server.supervisor import supervisor as module
from inferd_server.supervisor.spawn import FRONT, WORKER
from inferd_server.supervisor.worker_deaths import WorkerDeaths

from tests.server.supervisor.supervised import Bench, Speaking, hears

M = ("m", 1)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(module, "WorkerDeaths", lambda: WorkerDeaths(lambda: None))
    made = Bench(tmp_path)
    yield made
    made.close()


def test_the_next_worker_is_told_before_it_gets_a_request_and_those_after_it_at_the_start(
    bench: Bench,
) -> None:
    worker, place = bench.next(WORKER)
    front, _ = bench.next(FRONT)
    assert place.batch_limits == {}
    assert isinstance(hears(worker, messages.Attach), messages.Attach)
    worker.die()
    assert isinstance(hears(front, messages.WorkerGone), messages.WorkerGone)
    second, _ = bench.next(WORKER)
    assert isinstance(front.channel, Speaking)
    front.channel.says.put(messages.Disconnected({M: 8}))
    told = hears(second, messages.BatchLimits, messages.Attach)
    assert told == messages.BatchLimits({M: 4})
    assert hears(second, messages.BatchLimits, messages.Attach) == messages.Attach(0)
    second.die()
    _, place = bench.next(WORKER)
    assert place.batch_limits == {M: 4}
