"""Rows beyond a model's maximum are sent in parts, and come back as one result."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from inferd.oip.v2 import inference_pb2 as pb
from inferd_client import AsyncClient, Client, Result
from inferd_client.errors import InvalidInput, InvalidResponse

from tests.fakes.oip_server import OipServer, echo

ROWS = np.arange(150 * 2, dtype=np.float32).reshape(150, 2)


@pytest.fixture
def sizes(server: OipServer) -> list[int]:
    """The rows of each call that reaches a model of at most 32."""
    seen: list[int] = []

    def counted(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        seen.append(request.inputs[0].shape[0])
        return echo(request)

    server.infer = counted
    server.answers["ModelConfig"] = pb.ModelConfigResponse(config={"max_batch_size": 32})
    return seen


def test_more_rows_than_the_maximum_go_in_parts(server: OipServer, sizes: list[int]) -> None:
    with Client(server.address) as client:
        result = client.infer("m", x=ROWS, y=ROWS[:, :1], split=True)
    assert sizes == [32, 32, 32, 32, 22]
    np.testing.assert_array_equal(result["x"], ROWS)
    np.testing.assert_array_equal(result["y"], ROWS[:, :1])


def test_the_asyncio_client_splits_as_well(server: OipServer, sizes: list[int]) -> None:
    async def scenario() -> Result:
        async with AsyncClient(server.address) as client:
            return await client.infer("m", x=ROWS, split=True)

    np.testing.assert_array_equal(asyncio.run(scenario())["x"], ROWS)
    assert len(sizes) == 5


@pytest.mark.parametrize("value", [ROWS[:32], ROWS[:0], ROWS[:5].tolist()])
def test_rows_that_fit_go_in_one_call(server: OipServer, sizes: list[int], value: Any) -> None:
    with Client(server.address) as client:
        client.infer("m", x=value, split=True)
    assert sizes == [len(value)]


@pytest.mark.parametrize(
    "given",
    [
        {"x": ROWS, "y": ROWS[:3]},
        {"x": ROWS, "y": np.float32(1)},
        {"x": ROWS, "parameters": {"sequence_id": 1}},
    ],
)
def test_what_has_no_rows_in_common_or_is_a_sequence_is_not_split(
    server: OipServer, sizes: list[int], given: dict[str, Any]
) -> None:
    with Client(server.address) as client, pytest.raises(InvalidInput, match="can be split"):
        client.infer("m", split=True, **given)
    assert sizes == []


def test_outputs_without_a_row_for_each_are_refused(server: OipServer, sizes: list[int]) -> None:
    answer = pb.ModelInferResponse(raw_output_contents=[bytes(4)])
    answer.outputs.add(name="y", datatype="FP32", shape=[1])
    server.infer = lambda _: answer
    with Client(server.address) as client, pytest.raises(InvalidResponse, match="do not split"):
        client.infer("m", x=ROWS, split=True)
