from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from inferd.oip.v2 import inference_pb2 as pb
from inferd_client import AsyncClient, Client, Result
from inferd_client.errors import Cancelled, DeadlinePassed, InvalidInput, InvalidResponse

from tests.fakes.oip_server import OipServer

IMAGE = np.arange(12, dtype=np.float32).reshape(3, 4)


def answering(*outputs: dict[str, Any], raw: list[bytes] | None = None) -> pb.ModelInferResponse:
    tensors = [pb.ModelInferResponse.InferOutputTensor(**output) for output in outputs]
    return pb.ModelInferResponse(outputs=tensors, raw_output_contents=raw)


def test_tensors_come_back_by_name(client: Client) -> None:
    result = client.infer("digits", image=IMAGE, inputs={"odd name": [1, 2]})
    assert list(result) == ["odd name", "image"]
    assert len(result) == 2
    np.testing.assert_array_equal(result["image"], IMAGE)
    assert result["odd name"].dtype == np.int64


def test_result_says_who_answered(client: Client) -> None:
    result = client.infer(
        "digits", version="3", id="a", parameters={"n": 1, "s": "x", "b": True, "f": 0.5}, x=1
    )
    assert (result.model_name, result.model_version, result.id) == ("digits", "3", "a")
    assert result.parameters == {"n": 1, "s": "x", "b": True, "f": 0.5}
    assert repr(result) == "<Result of digits/3: x=int64[]>"


def test_request_names_the_outputs_wanted_and_carries_metadata(
    server: OipServer, client: Client
) -> None:
    client.infer("digits", outputs=["scores"], metadata=[("tenant", "blue")], x=1)
    assert [output.name for output in server.seen.outputs] == ["scores"]
    assert server.metadata["tenant"] == "blue"


def test_metadata_of_the_client_goes_with_every_call(server: OipServer) -> None:
    with Client(server.address, metadata=[("tenant", "blue")]) as client:
        client.infer("digits", metadata=[("trace", "1")], x=1)
    assert (server.metadata["tenant"], server.metadata["trace"]) == ("blue", "1")


def test_asyncio_client_infers_many_at_once(server: OipServer) -> None:
    async def scenario() -> list[Result]:
        async with AsyncClient(server.address) as client:
            return await asyncio.gather(*(client.infer("m", x=[index]) for index in range(20)))

    results = asyncio.run(scenario())
    assert [result["x"].item() for result in results] == list(range(20))


def test_64_mb_tensor_makes_the_round_trip_as_a_view(client: Client) -> None:
    large = np.arange(16 * 1024 * 1024, dtype=np.float32)
    returned = client.infer("m", x=large)["x"]
    np.testing.assert_array_equal(returned, large)
    assert returned.base is not None
    assert not returned.flags.writeable


@pytest.mark.parametrize(
    ("name", "elements"),
    [("fp32_contents", [0.5, 1.5]), ("fp32_contents", [])],
)
def test_typed_contents_are_read(
    server: OipServer, client: Client, name: str, elements: list[float]
) -> None:
    server.infer = lambda _: answering(
        {"name": "y", "datatype": "FP32", "shape": [len(elements), 1], "contents": {name: elements}}
    )
    expected = np.array(elements, np.float32).reshape(-1, 1)
    np.testing.assert_array_equal(client.infer("m", x=1)["y"], expected)


@pytest.mark.parametrize(
    ("response", "complaint"),
    [
        (
            answering({"name": "y", "datatype": "FP32", "shape": [2]}, raw=[b"1234567"]),
            r"'y': 7 bytes came for FP32 of shape \[2\], which takes 8",
        ),
        (answering({"name": "y", "datatype": "BYTES", "shape": [1]}, raw=[b"\x09\0\0\0x"]), "9"),
        (answering({"name": "y", "datatype": "FP8", "shape": [1]}, raw=[b"1"]), "FP8"),
        (answering({"name": "y", "datatype": "FP32", "shape": [-1]}, raw=[b""]), "-1"),
        (answering({"name": "y", "datatype": "FP16", "shape": [1]}), "raw contents, and none came"),
        (answering({"name": "y", "datatype": "FP32", "shape": [3]}), "0 elements came"),
        (
            answering(
                {"name": "y", "datatype": "INT8", "shape": [1], "contents": {"int_contents": [300]}}
            ),
            "300",
        ),
        (
            answering({"name": "y", "datatype": "INT8", "shape": [1]}, raw=[b"1", b"2"]),
            "2 raw contents came for 1 outputs",
        ),
        (
            answering(*[{"name": "y", "datatype": "INT8", "shape": [1]}] * 2, raw=[b"1", b"2"]),
            "twice",
        ),
    ],
)
def test_answer_that_contradicts_itself_is_an_error(
    server: OipServer, client: Client, response: pb.ModelInferResponse, complaint: str
) -> None:
    server.infer = lambda _: response
    with pytest.raises(InvalidResponse, match=complaint):
        client.infer("m", x=1)


@pytest.mark.parametrize(
    "value",
    [np.zeros(1, np.complex64), [[1], [1, 2]], np.array([None]), [2**70], np.datetime64("2020")],
)
def test_what_the_protocol_cannot_carry_is_refused_before_sending(
    server: OipServer, client: Client, value: npt.ArrayLike
) -> None:
    with pytest.raises(InvalidInput, match="'x'"):
        client.infer("m", x=value)
    assert server.seen is None


def test_input_given_twice_is_refused(client: Client) -> None:
    with pytest.raises(InvalidInput, match="given twice: x"):
        client.infer("m", inputs={"x": 1}, x=2)


@pytest.mark.parametrize("value", [2**64, None, [1]])
def test_parameter_without_a_field_is_refused(client: Client, value: object) -> None:
    with pytest.raises(InvalidInput, match="parameter 'p'"):
        client.infer("m", parameters={"p": value}, x=1)  # type: ignore[dict-item]


def test_integer_above_int64_travels_as_uint64(client: Client) -> None:
    assert client.infer("m", parameters={"p": 2**64 - 1}, x=1).parameters == {"p": 2**64 - 1}


def test_timeout_of_the_call_ends_it(server: OipServer, client: Client) -> None:
    server.infer = server.hold
    with pytest.raises(DeadlinePassed):
        client.infer("m", timeout=0.05, x=1)


def test_timeout_of_the_client_ends_an_asyncio_call(server: OipServer) -> None:
    server.infer = server.hold

    async def scenario() -> None:
        async with AsyncClient(server.address, timeout=0.05) as client:
            await client.infer("m", x=1)

    with pytest.raises(DeadlinePassed):
        asyncio.run(scenario())


def test_closing_the_asyncio_client_cancels_calls_under_way(server: OipServer) -> None:
    server.infer = server.hold

    async def scenario() -> None:
        client = AsyncClient(server.address)
        call = asyncio.create_task(client.infer("m", x=1))
        await asyncio.to_thread(server.held.wait)
        await client.close()
        with pytest.raises(Cancelled):
            await call

    asyncio.run(scenario())


def test_cancelling_the_task_is_not_turned_into_an_error(server: OipServer) -> None:
    server.infer = server.hold

    async def scenario() -> None:
        async with AsyncClient(server.address) as client:
            call = asyncio.create_task(client.infer("m", x=1))
            await asyncio.to_thread(server.held.wait)
            call.cancel()
            await call

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(scenario())
