"""A model on the transport's thread keeps every promise that it keeps on one of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from inferd.oip.v2.inference_pb2 import ServerLiveRequest
from inferd.tensors import Array
from inferd_server.batching.inline import InlineLoop
from inferd_server.batching.stream_share import BATCHES

from tests.fakes.engine import FakeEngine, double, quick_engine
from tests.server.inference.held import held_rows, occupy
from tests.server.serving import (
    PATIENCE,
    FakeEngines,
    Running,
    infer_request,
    metrics_text,
    rows,
    running_fake,
)
from tests.server.transport.frames import (
    connected,
    frame,
    request,
)

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
DATA, RST_STREAM, SETTINGS = 0, 3, 4
SENT = 10
"""Requests at once, which core reads in one go."""
CANCEL = (8).to_bytes(4, "big")


@contextmanager
def inline(
    folder: Path, engine: FakeEngine, **settings: object
) -> Iterator[tuple[Running, FakeEngine]]:
    loop = InlineLoop(time.monotonic)
    with running_fake(folder, FakeEngines(lambda: engine), inline=loop, **settings) as served:
        assert served[0].server is not None
        assert served[0].server.repository.resolve("fake", "").arrangement == "inline"
        yield served


def message(value: float) -> bytes:
    return infer_request("fake", rows(value)).SerializeToString()


def address(server: Running) -> str:
    return f"127.0.0.1:{server.port}"


def settle(server: Running) -> None:
    """Exchange calls until nothing is held any more."""
    for _ in range(2000):
        server.stub.ServerLive(ServerLiveRequest(), timeout=PATIENCE)
        if not held_rows(server):
            return
    raise AssertionError(f"{held_rows(server)} rows are held")


@pytest.mark.parametrize(
    ("settings", "size", "room"),
    [
        ({"max_batch_size": 1, "max_queue_rows": 5}, 1, 5),
        ({"max_batch_size": 32, "max_queue_bytes": 1024}, 32, 2),
    ],
    ids=["rows", "bytes"],
)
def test_bounds_count_what_arrived_during_a_run(
    tmp_path: Path, settings: Mapping[str, int], size: int, room: int
) -> None:
    with (
        inline(tmp_path, quick_engine(), **settings) as (server, engine),
        connected(address(server)) as connection,
    ):
        first = occupy(server, engine)
        data = infer_request("fake", rows(*[1.0] * size)).SerializeToString()
        connection.send(b"".join(request(INFER, 2 * n + 1, data) for n in range(SENT)))
        engine.release()
        first.result(PATIENCE)
        settle(server)
        # Once the first was answered there was room for all of these.
        assert [batch.rows for batch in engine.batches] == [1, *[size] * room]
        refused = f'code="RESOURCE_EXHAUSTED",model="fake",version="1"}} {SENT - room}.0'
        assert refused in metrics_text(server.metrics_port)


class Stepped:
    """Lets an engine's runs go on one by one."""

    def __init__(self) -> None:
        self.begun, self._go_on = threading.Semaphore(0), threading.Semaphore(0)
        self.values: list[float] = []
        self.open = False

    def compute(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if self.open:
            self.values.append(float(inputs["INPUT0"][0, 0]))
            self.begun.release()
            assert self._go_on.acquire(timeout=PATIENCE)
        return double(inputs)

    def step(self, runs: int = 1) -> None:
        """Let runs end, and wait until the next one has begun."""
        for _ in range(runs):
            self._go_on.release()
            self.await_run()

    def await_run(self) -> None:
        assert self.begun.acquire(timeout=PATIENCE)

    def let_go(self) -> None:
        for _ in range(10_000):
            self._go_on.release()


@pytest.fixture
def stepped(tmp_path: Path) -> Iterator[tuple[Running, Stepped]]:
    steps = Stepped()
    engine = quick_engine()
    engine._compute = steps.compute
    with inline(tmp_path, engine, max_batch_size=1) as (server, _):
        steps.open = True
        try:
            yield server, steps
        finally:
            steps.let_go()


def stream_of(count: int) -> bytes:
    """Return the frames of a stream that stays open after so many messages."""
    opening = request(STREAM, 1)
    headers = opening[: 9 + int.from_bytes(opening[:3], "big")]
    bodies = (b"\0" + len(m).to_bytes(4, "big") + m for m in map(message, range(count)))
    return headers + b"".join(frame(DATA, 0, 1, body) for body in bodies)


def test_a_stream_that_is_cancelled_does_not_run_to_its_end(
    stepped: tuple[Running, Stepped],
) -> None:
    server, steps = stepped
    with connected(address(server)) as connection:
        connection.send(stream_of(40))
        steps.await_run()
        steps.step()
        # During the second run.
        connection.send(frame(RST_STREAM, 0, 1, CANCEL))
        steps.let_go()
        settle(server)
    assert steps.values == [0.0, 1.0]


def test_one_callers_full_stream_keeps_nobody_waiting_for_all_of_it(
    stepped: tuple[Running, Stepped],
) -> None:
    server, steps = stepped
    with connected(address(server)) as connection, connected(address(server)) as other:
        other.await_frame(SETTINGS)
        connection.send(stream_of(40))
        steps.await_run()
        # Behind it on another connection.
        other.send(request(INFER, 1, message(77.0)))
        # The kernel takes its time on a busy machine, but not for so many runs.
        for _ in range(8 * BATCHES):
            steps.step()
            if 77.0 in steps.values:
                break
        assert 77.0 in steps.values
        steps.let_go()
        settle(server)
    assert steps.values.count(77.0) == 1
    assert [value for value in steps.values if value != 77.0] == [float(n) for n in range(40)]


def test_a_deadline_that_passes_during_a_run_is_noticed_before_the_next(
    stepped: tuple[Running, Stepped],
) -> None:
    server, steps = stepped
    first = server.stub.ModelInfer.future(infer_request("fake", rows(1.0)), timeout=PATIENCE)
    steps.await_run()
    late = infer_request("fake", rows(2.0))
    late.parameters["timeout"].int64_param = 1
    second = server.stub.ModelInfer.future(late, timeout=PATIENCE)
    third = server.stub.ModelInfer.future(infer_request("fake", rows(3.0)), timeout=PATIENCE)
    steps.step()
    steps.let_go()
    for future in (first, third):
        future.result(PATIENCE)
    assert second.code().name == "DEADLINE_EXCEEDED"
    assert steps.values == [1.0, 3.0]
