"""Requests of fronts in front of a plan, over the doubles of pycuda and TensorRT."""

from __future__ import annotations

import threading
import time

import pytest
from inferd.tensors import Array
from inferd_server.batching.decision import BatchBounds
from inferd_server.batching.overlap import Overlap
from inferd_server.batching.runner import Runner
from inferd_server.processes.link.worker_end import LinkRequest

from tests.engines.tensorrt.bench import Bench as Gpu
from tests.fakes.engine import DOUBLING, double
from tests.server.callers import ANSWERED_WITHIN, rows_of
from tests.server.processes.link.bench import Bench, Target, bench

SIZES = (1, 2, 4)


class Plan:
    """A plan whose worker thread has the GPU."""

    def __init__(self, made: Bench, patch: pytest.MonkeyPatch) -> None:
        self.copied: list[int] = []
        self._made = made
        self._patch = patch
        dtypes = [tensor.dtype for tensor in DOUBLING.inputs]
        self.queue = made.inbox.open(dtypes, BatchBounds(4, 0.0, SIZES))
        self.target = Target(self.queue.number)
        self._thread = threading.Thread(target=self._live)
        self._thread.start()

    def end(self) -> None:
        self.queue.close()
        self._thread.join(ANSWERED_WITHIN)
        assert not self._thread.is_alive()

    def _live(self) -> None:
        gpu = Gpu()
        copy = gpu.cuda.memcpy_htod_async

        def watched(dest: object, source: Array, stream: object) -> None:
            self.copied.append(source.ctypes.data)
            copy(dest, source, stream)

        self._patch.setattr(gpu.cuda, "memcpy_htod_async", watched)
        engine = gpu.open(DOUBLING, double, buckets=SIZES)
        self.copied.clear()
        for memory in self._made.inbox.memory:
            assert engine.register(memory)
        runner: Runner[LinkRequest] = Runner(
            engine, True, self._made.executions.append, time.monotonic
        )
        Overlap(self.queue, runner).run()
        engine.close()
        assert gpu.standin.held("registered") == 0
        gpu.close()


def test_batches_overlap_and_full_ones_are_read_where_the_fronts_wrote_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with bench(2) as made:
        plan = Plan(made, monkeypatch)
        for start in range(0, 120, 6):
            # Alone, a request that fills a bucket is its own batch.
            alone = made.fronts[start // 6 % 2].send(plan.target, 1.0, 2.0)
            assert alone.wait().output == rows_of(2, 4)
            values = [float(start + index) for index in range(6)]
            sent = [
                made.fronts[index % 2].send(plan.target, value, value + 0.5)
                for index, value in enumerate(values)
            ]
            for value, caller in zip(values, sent, strict=True):
                assert caller.wait().output == rows_of(2 * value, 2 * value + 1)
        plan.end()
        places = [link.inputs.ctypes for link in made.links.values()]
        sizes = [link.inputs.nbytes for link in made.links.values()]
        inside = [
            any(p.data <= at < p.data + size for p, size in zip(places, sizes, strict=True))
            for at in plan.copied
        ]
        assert sum(inside) >= 20
    assert sum(run.rows for run in made.executions) == 280
