"""A store followed by a server with a worker on each of two GPUs, on the stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import grpc
import pytest
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd_store.store import Store

from tests.device.test_split import settings
from tests.server.lifecycle.process import PATIENCE
from tests.server.lifecycle.stores import check, store_of
from tests.server.processes.split import Split, split_process
from tests.server.serving import infer_request, rows
from tests.store.releases import BY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
FIRST, SECOND = (f"GPU-00000000-0000-0000-0000-00000000000{index}" for index in range(2))
PLACES = {"first": "[0]", "second": "[1]", "both": "all"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store of a model on each GPU, and of one on both."""
    for name, gpus in PLACES.items():
        made = store_of(tmp_path / name, name, str(tmp_path / "store"), f"gpus: {gpus}\n")
    return made


@pytest.fixture
def server(tmp_path: Path, store: Store) -> Iterator[Split]:
    (tmp_path / "reports").mkdir()
    found = {**settings(tmp_path / "reports"), "STANDIN_DEVICES": "2"}
    # The plans are built while the models serve; nobody waits for them here.
    flags = ("--plan-store", str(tmp_path / "plans"), "--store-poll-s=0.05", "--fronts", "2")
    with split_process(Path(store.address), *flags, environment=found) as server:
        yield server
        server.process.terminate()
        assert server.process.exit_code() == 0


def await_version(stub: GRPCInferenceServiceStub, model: str, version: str) -> None:
    """Ask until a version answers; every answer is right for the version that it names."""
    until = monotonic() + PATIENCE
    while asked(stub, model) != version:
        assert monotonic() < until


def await_label(stub: GRPCInferenceServiceStub, model: str, version: str) -> None:
    """Ask until a new label is known; from then on it answers, and right."""
    unknown = {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE}
    until = monotonic() + PATIENCE
    while monotonic() < until:
        try:
            found = asked(stub, model)
        except grpc.RpcError as error:
            if error.code() not in unknown:
                raise
            continue
        assert found == version
        return
    raise AssertionError(f"{model} was not known in time")


def asked(stub: GRPCInferenceServiceStub, model: str) -> str:
    answer = stub.ModelInfer(infer_request(model, rows(7.0)), timeout=PATIENCE)
    return check(answer, 7.0)


def test_labels_move_on_the_workers_of_every_gpu(server: Split, store: Store) -> None:
    metrics = server.metrics()
    on = [metrics[f'inferd_device_models{{device="{device}"}}'] for device in (FIRST, SECOND)]
    assert on == [2, 2]
    with server.channel() as channel:
        stub = GRPCInferenceServiceStub(channel)
        for name in PLACES:
            assert asked(stub, name) == "1"
            store.move(name, "production", "2", BY)
            store.move(name, "candidate", "3", BY)
        for name in PLACES:
            await_version(stub, name, "2")
            await_label(stub, f"{name}@candidate", "3")
            await_version(stub, f"{name}@production", "2")
            store.rollback(name, "production", BY)
        for name in PLACES:
            await_version(stub, name, "1")
            await_version(stub, f"{name}@production", "1")
