"""Requests that look alike get their own answers, from the model that serves now.

On both transports, and with the engine on a thread of its own and on the transport's.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from inferd.oip.v2.inference_pb2 import (
    RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
)
from inferd_server.batching.inline import InlineLoop

from tests import models
from tests.server.serving import Running, arrays, infer_request, rows, running


@pytest.fixture(params=["aio", "inline"])
def inline(request: pytest.FixtureRequest) -> InlineLoop | None:
    return InlineLoop(time.monotonic) if request.param == "inline" else None


def scaled(server: Running, value: float, ident: str = "") -> float:
    answer = server.infer(infer_request("scaled", rows(value), ident=ident))
    assert answer.id == ident
    output = arrays(answer)["OUTPUT0"]
    assert output.shape == (1, 4)
    return float(output[0, 0])


def test_each_repeated_request_gets_its_own_answer_and_id(
    tmp_path: Path, inline: InlineLoop | None
) -> None:
    repository = models.repository(tmp_path, {"scaled": models.scale(2)})
    with running(repository, inline=inline) as server, ThreadPoolExecutor(16) as pool:
        values = list(range(400))
        answers = pool.map(lambda v: scaled(server, v, f"request {v}"), values)
        assert list(answers) == [2.0 * value for value in values]


def test_a_reload_serves_repeated_requests_from_the_new_model(
    tmp_path: Path, inline: InlineLoop | None
) -> None:
    repository = models.repository(tmp_path, {"scaled": models.scale(2)})
    with running(repository, inline=inline) as server:
        assert [scaled(server, 1), scaled(server, 1)] == [2, 2]
        models.save(models.scale(3), repository / "scaled/1/model.onnx")
        server.stub.RepositoryModelLoad(RepositoryModelLoadRequest(model_name="scaled"))
        assert [scaled(server, 1), scaled(server, 1)] == [3, 3]


def test_a_higher_version_takes_over_repeated_requests_without_a_version(
    tmp_path: Path, inline: InlineLoop | None
) -> None:
    repository = models.repository(
        tmp_path, {"scaled": models.scale(2)}, yaml={"scaled": "versions: all"}
    )
    with running(repository, inline=inline) as server:
        assert [scaled(server, 1), scaled(server, 1)] == [2, 2]
        (repository / "scaled/2").mkdir()
        models.save(models.scale(5), repository / "scaled/2/model.onnx")
        server.stub.RepositoryModelLoad(RepositoryModelLoadRequest(model_name="scaled"))
        assert [scaled(server, 1), scaled(server, 1)] == [5, 5]


def test_an_unloaded_model_refuses_repeated_requests_and_serves_them_again(
    tmp_path: Path, inline: InlineLoop | None
) -> None:
    repository = models.repository(tmp_path, {"scaled": models.scale(2)})
    with running(repository, inline=inline) as server:
        assert [scaled(server, 1), scaled(server, 1)] == [2, 2]
        server.stub.RepositoryModelUnload(RepositoryModelUnloadRequest(model_name="scaled"))
        error = server.refused(infer_request("scaled", rows(1)))
        assert error.code() == grpc.StatusCode.NOT_FOUND
        server.stub.RepositoryModelLoad(RepositoryModelLoadRequest(model_name="scaled"))
        assert [scaled(server, 1), scaled(server, 1)] == [2, 2]


def test_inputs_in_another_order_than_the_models_keep_their_elements(
    tmp_path: Path, inline: InlineLoop | None
) -> None:
    repository = models.repository(tmp_path, {"simple": models.add_sub()})
    with running(repository, inline=inline) as server:
        for number in range(5):
            one = np.full((2, 16), number, np.int32)
            two = np.full((2, 16), 100, np.int32)
            request = infer_request("simple", {"INPUT1": one, "INPUT0": two})
            outputs = arrays(server.infer(request))
            np.testing.assert_array_equal(outputs["OUTPUT0"], two + one)
            np.testing.assert_array_equal(outputs["OUTPUT1"], two - one)


def test_a_boolean_is_checked_in_every_request(tmp_path: Path, inline: InlineLoop | None) -> None:
    repository = models.repository(tmp_path, {"flags": models.identity("BOOL")})
    with running(repository, inline=inline) as server:
        (tensor,) = server.server.repository.resolve("flags", "").signature.inputs
        shape = tuple(2 if size is None else size for size in tensor.shape)
        good = infer_request("flags", {tensor.name: np.ones(shape, np.bool_)})
        bad = infer_request("flags", {tensor.name: np.ones(shape, np.bool_)})
        bad.raw_input_contents[0] = b"\x02" + bad.raw_input_contents[0][1:]
        for _ in range(2):
            assert server.infer(good).outputs
            assert server.refused(bad).code() == grpc.StatusCode.INVALID_ARGUMENT
