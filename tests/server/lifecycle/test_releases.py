"""A served store: labels, promotion and rollback under load, in every arrangement."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from time import monotonic

import grpc
import pytest
from inferd.oip.v2.inference_pb2 import RepositoryIndexRequest
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd_engines.engine import Engine, EngineError, EngineOptions
from inferd_engines.onnx import open_onnx
from inferd_server.batching.inline import InlineLoop
from inferd_store.store import Store

from benchmarks.peers.memory import tree
from tests.server.lifecycle.process import ready_process
from tests.server.lifecycle.stores import FACTORS, check, following, models_of, store_of
from tests.server.serving import (
    PATIENCE,
    Running,
    failure,
    infer_request,
    metrics_text,
    rows,
    running_processes,
)
from tests.store.releases import BY

CALLERS = 4
SOME, MANY = 12, 200
"""Reloads under load."""
ARRANGEMENTS = {
    "inline": ("inline",),
    "threads": ("threads",),
    "split": ("split", "--fronts", "2"),
    "replicas": ("replicas", "--replicas", "2"),
}


def version_of(server: Running, model: str = "m", version: str = "") -> str:
    return check(server.infer(infer_request(model, rows(7.0), version=version)), 7.0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_of(tmp_path)


def test_the_version_in_production_serves_who_names_none(store: Store, tmp_path: Path) -> None:
    store.move("m", "candidate", "3", BY)
    with following(store, tmp_path) as (server, follower):
        assert version_of(server) == "1"
        assert version_of(server, "m@candidate") == "3"
        assert version_of(server, version="@candidate") == "3"
        store.move("m", "production", "2", BY)
        follower.look(models_of(server))
        assert version_of(server) == "2"
        assert version_of(server, "m@production") == "2"
        store.rollback("m", "production", BY)
        follower.look(models_of(server))
        assert version_of(server) == "1"
        error = failure(lambda: version_of(server, "m@stable"))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert "has no label 'stable'; it has candidate, production" in str(error.details())


def test_a_release_that_cannot_be_loaded_is_told_and_the_one_before_serves(
    store: Store, tmp_path: Path
) -> None:
    def open_all_but_two(path: Path, options: EngineOptions) -> Engine:
        if path.parent.name == "2":
            raise EngineError("no room on the device")
        return open_onnx(path, options)

    with following(store, tmp_path, opener=open_all_but_two) as (server, follower):
        store.move("m", "production", "2", BY)
        follower.look(models_of(server))
        assert version_of(server) == "1"
        for _ in range(2):
            index = server.stub.RepositoryIndex(RepositoryIndexRequest()).models
            told = {one.version: (one.state, one.reason) for one in index}
            assert told["1"][0] == "READY"
            assert told["2"] == ("UNAVAILABLE", "no room on the device")
            # Another label brings another version, and the reason is still told.
            store.move("m", "staging", "3", BY)
            follower.look(models_of(server))
        assert version_of(server, "m@staging") == "3"


def test_a_version_that_was_unloaded_keeps_no_memory_for_requests(
    store: Store, tmp_path: Path
) -> None:
    def lanes() -> str:
        text = metrics_text(server.metrics_port)
        return next(line for line in text.splitlines() if line.startswith("inferd_lane_bytes "))

    with following(store, tmp_path, warm=0.0) as (server, follower):
        version_of(server)
        before = lanes()
        for version in ("2", "3", "1"):
            store.move("m", "production", version, BY)
            follower.look(models_of(server))
            assert version_of(server) == version
        assert lanes() == before


class Load:
    """Callers who ask for a model all the time; each answer is checked."""

    def __init__(self, servers: list[Running]) -> None:
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(CALLERS * len(servers))
        self._seen = [threading.Condition() for _ in servers]
        self.latest = [""] * len(servers)
        self.answered = 0
        self._calls: list[Future[int]] = [
            self._pool.submit(self._ask, index, server)
            for index, server in enumerate(servers)
            for _ in range(CALLERS)
        ]

    def _ask(self, index: int, server: Running) -> int:
        for number in count(1):
            value = float(number % 100 + 1)
            version = check(server.infer(infer_request("m", rows(value))), value)
            with self._seen[index]:
                self.latest[index] = version
                self.answered += 1
                self._seen[index].notify_all()
            if self._ended.is_set():
                return number
        return 0

    def await_version(self, version: str, servers: int = 1) -> None:
        """Wait until callers are answered by a version."""
        for index in range(servers):
            with self._seen[index]:
                assert self._seen[index].wait_for(
                    lambda index=index: self.latest[index] == version or self._failed(), PATIENCE
                )
        self.check()

    def await_answers(self, number: int) -> None:
        """Wait until callers were answered so often by the first server."""
        with self._seen[0]:
            assert self._seen[0].wait_for(lambda: self.answered >= number, PATIENCE)

    def check(self) -> None:
        for call in self._calls:
            if call.done():
                call.result()

    def _failed(self) -> bool:
        return any(call.done() for call in self._calls)

    def end(self) -> int:
        """Return how many requests were answered; raises if one failed or was wrong."""
        self._ended.set()
        self._pool.shutdown()
        return sum(call.result() for call in self._calls)


@contextmanager
def load(*servers: Running) -> Iterator[Load]:
    under = Load(list(servers))
    try:
        yield under
    finally:
        answered = under.end()
    assert answered > 0


def swap(
    store: Store,
    server: Running,
    look: Callable[[], None],
    times: int,
    each: Callable[[int], None],
    first: int = 1,
) -> None:
    """Reload a model under load, after the first answers: each time, one version is unloaded."""
    with load(server) as under:
        under.await_answers(first)
        for number in range(times):
            version = str(1 + (number + 1) % len(FACTORS))
            store.move("m", "production", version, BY)
            look()
            under.await_version(version)
            each(number)


@pytest.mark.parametrize("inline", [True, False])
def test_no_request_fails_while_versions_are_swapped(
    store: Store, tmp_path: Path, inline: bool
) -> None:
    how = {"inline": InlineLoop(monotonic)} if inline else {}
    with following(store, tmp_path, warm=0.0, **how) as (server, follower):
        swap(store, server, lambda: follower.look(models_of(server)), SOME, lambda _: None)


@pytest.mark.parametrize("arrangement", ["split", "replicas"])
def test_no_request_fails_while_processes_swap_versions(
    store: Store, tmp_path: Path, arrangement: str
) -> None:
    flags = {"store_poll_s": 0.05, "store_keep_warm_s": 0}
    place = tmp_path / "store"
    with running_processes(place, ARRANGEMENTS[arrangement], **flags) as server:
        swap(store, server, lambda: None, 3, lambda _: None)
        assert "inferd_store_failed_versions 0.0" in metrics_text(server.metrics_port)


def note_memory(used: list[int], pid: int, _: int) -> None:
    """Note the pages of memory that a process and its children use."""
    used.append(sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in tree(pid)))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_two_hundred_swaps_leave_no_memory_behind(
    store: Store, tmp_path: Path, arrangement: str
) -> None:
    used: list[int] = []
    # Fronts take pages for answers until they have been round once: here they soon have.
    flags = ("--store-poll-s=0.05", "--store-keep-warm-s=0", "--answer-bytes", str(1 << 19))
    flags += ("--processes", *ARRANGEMENTS[arrangement])
    with ready_process(tmp_path / "store", *flags) as (process, where):
        port = where["grpc_port"]
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = GRPCInferenceServiceStub(channel)
            server = Running(None, port, where["metrics_port"], channel, stub)
            # The buffers of requests have grown by then to what they need.
            note = partial(note_memory, used, process.pid)
            swap(store, server, lambda: None, MANY, note, first=5000)
    # A single look may meet the version before, which is about to go.
    # Bounded caches fill until about the 160th swap, most of it in the first quarter.
    grown = median(used[-10:]) / median(used[MANY // 4 :][:10])
    assert grown <= 1.02


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_two_hundred_swaps_fail_no_request_in_any_arrangement(
    store: Store, tmp_path: Path, arrangement: str
) -> None:
    flags = {"store_poll_s": 0.05, "store_keep_warm_s": 0}
    with running_processes(tmp_path / "store", ARRANGEMENTS[arrangement], **flags) as server:
        swap(store, server, lambda: None, MANY, lambda _: None)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_three_servers_follow_a_promotion_and_a_rollback_within_two_seconds(
    store: Store, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        servers = [
            stack.enter_context(running_processes(tmp_path / "store", ARRANGEMENTS[name]))
            for name in ("inline", "split", "replicas")
        ]
        with load(*servers) as under:
            for change, version in (
                (lambda: store.move("m", "production", "2", BY), "2"),
                (lambda: store.rollback("m", "production", BY), "1"),
            ):
                change()
                begun = monotonic()
                under.await_version(version, len(servers))
                assert monotonic() - begun < 2.0
