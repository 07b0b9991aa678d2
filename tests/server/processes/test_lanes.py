"""The memory for inputs of a front: what idle models keep of it does not refuse anybody."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub

from tests import models
from tests.server.lifecycle.process import PATIENCE
from tests.server.processes.split import Split, split_process
from tests.server.serving import arrays, infer_request

WIDTH = 15_000
MODELS = 12
INPUT_BYTES = 2 * 1024 * 1024


def ask(stub: GRPCInferenceServiceStub, name: str, values: np.ndarray) -> None:
    """Send a request and check its answer."""
    answer = stub.ModelInfer(infer_request(name, {"INPUT0": values}), timeout=PATIENCE)
    np.testing.assert_array_equal(arrays(answer)["OUTPUT0"], values)


def row(width: int) -> np.ndarray:
    return np.arange(width, dtype=np.float32)[np.newaxis]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Split]:
    wide = {f"wide{n}": models.identity("FP32", dims=("batch", WIDTH)) for n in range(MODELS)}
    free = {"free": models.identity("FP32", dims=("batch", "width"))}
    repository = models.repository(tmp_path_factory.mktemp("models"), {**wide, **free})
    flags = ("--fronts", "1", "--input-bytes", str(INPUT_BYTES), "--max-batch-size", "4")
    with split_process(repository, *flags) as server:
        yield server


def test_many_models_of_large_rows_answer_a_request_each(server: Split) -> None:
    with server.channel() as channel:
        stub = GRPCInferenceServiceStub(channel)
        for _ in range(2):
            for index in range(MODELS):
                ask(stub, f"wide{index}", row(WIDTH))


def test_a_cache_that_grows_by_a_step_leaves_room_for_the_others(server: Split) -> None:
    with server.channel() as channel:
        stub = GRPCInferenceServiceStub(channel)
        for step in range(1, 151):
            ask(stub, "free", row(100 * step))
        ask(stub, "wide0", row(WIDTH))
    found = server.metrics()
    assert found["inferd_slots_in_use"] == 0
    assert found["inferd_idle_lane_bytes"] == found["inferd_lane_bytes"] > 0


def test_a_request_of_all_the_bytes_fits_and_a_larger_one_is_told_the_bound(
    server: Split,
) -> None:
    most = INPUT_BYTES // 4
    with server.channel() as channel:
        stub = GRPCInferenceServiceStub(channel)
        ask(stub, "free", row(most))
        with pytest.raises(grpc.RpcError) as refused:
            ask(stub, "free", row(most + 1024))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "input_bytes" in (refused.value.details() or "")
