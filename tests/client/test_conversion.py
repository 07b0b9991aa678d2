"""Python's values take the model's datatype, and no whole number is changed on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from inferd.oip.v2 import inference_pb2 as pb
from inferd.tensors import DATATYPES
from inferd_client import AsyncClient, Client, Request, Result
from inferd_client.conversion import converted
from inferd_client.errors import InvalidInput
from inferd_client.information import TensorInfo

from tests.fakes.oip_server import OipServer

INF = float("inf")


def signature(**datatypes: str) -> pb.ModelMetadataResponse:
    message = pb.ModelMetadataResponse(name="m")
    for name, datatype in datatypes.items():
        message.inputs.add(name=name, datatype=datatype, shape=[-1, 1])
    return message


class Table:
    """A double for a DataFrame."""

    def __init__(self, **columns: Any) -> None:
        self._columns = {name: np.asarray(column) for name, column in columns.items()}
        self.columns = list(columns)

    def __getitem__(self, name: str) -> Column:
        return Column(self._columns[name])

    def to_numpy(self) -> Any:
        return np.stack(list(self._columns.values()), axis=1)


class Column:
    def __init__(self, values: Any) -> None:
        self._values = values

    def to_numpy(self) -> Any:
        return self._values


def sync_infer(server: OipServer, **given: Any) -> Result:
    with Client(server.address) as client:
        return client.infer("m", **given)


def asyncio_infer(server: OipServer, **given: Any) -> Result:
    async def scenario() -> Result:
        async with AsyncClient(server.address) as client:
            return await client.infer("m", **given)

    return asyncio.run(scenario())


Infer = Callable[..., Result]


@pytest.fixture(params=[sync_infer, asyncio_infer], ids=["sync", "asyncio"])
def infer(request: pytest.FixtureRequest) -> Infer:
    chosen: Infer = request.param
    return chosen


@pytest.mark.parametrize("value", [[[5.1, 3.5]], [[5, 3]], [5, 3.5], 2.0, 2, True, ((1,), (2,))])
@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "BF16"])
def test_lists_and_numbers_take_the_datatype_of_the_model(
    server: OipServer, infer: Infer, value: Any, datatype: str
) -> None:
    server.answers["ModelMetadata"] = signature(x=datatype)
    result = infer(server, x=value)["x"]
    assert result.dtype == DATATYPES[datatype]
    np.testing.assert_array_equal(result, np.asarray(value).astype(DATATYPES[datatype]))


def test_a_model_is_asked_once_for_its_datatypes(server: OipServer) -> None:
    server.answers["ModelMetadata"] = iter([signature(x="FP32")])
    with Client(server.address) as client:
        for _ in range(3):
            assert client.infer("m", x=[1])["x"].dtype == np.float32


def test_a_list_in_a_stream_takes_the_datatype_of_the_model(server: OipServer) -> None:
    server.answers["ModelMetadata"] = signature(x="FP32")
    with Client(server.address) as client:
        (item,) = client.stream([Request("m", {"x": [1]})])
    assert item.result()["x"].dtype == np.float32


def test_arrays_are_sent_as_they_are_and_nothing_is_asked(server: OipServer, infer: Infer) -> None:
    server.answers["ModelMetadata"] = iter(())
    assert infer(server, x=np.ones(1))["x"].dtype == np.float64


def test_a_server_that_tells_no_datatypes_gets_those_of_numpy(
    server: OipServer, infer: Infer
) -> None:
    assert infer(server, x=[1])["x"].dtype == np.int64


def test_cast_gives_arrays_the_datatype_of_the_model(server: OipServer, infer: Infer) -> None:
    server.answers["ModelMetadata"] = signature(x="FP32")
    result = infer(server, x=np.array([0.1]), cast=True)["x"]
    assert result.tolist() == [np.float32(0.1)]


def test_a_refused_datatype_names_both_cures(server: OipServer, infer: Infer) -> None:
    server.answers["ModelMetadata"] = signature(x="FP32")
    said = "input 'x' has datatype 'FP64'; FP32 was expected"
    server.fail_infer = (grpc.StatusCode.INVALID_ARGUMENT, said, "InvalidInput")
    with pytest.raises(InvalidInput, match=r"FP32 was expected; pass cast=True, or x.astype"):
        infer(server, x=np.ones(1))


@pytest.mark.parametrize(
    ("value", "datatype", "complaint"),
    [
        ([16777217], "FP32", r"16777217 at \[0\] does not fit FP32"),
        ([[0.5, 16777217]], "FP32", r"at \[0, 1\]"),
        ([2**53 + 1], "FP64", "does not fit"),
        ([257], "BF16", "does not fit"),
        ([70000.0], "FP16", "does not fit"),
        ([1.5], "INT64", "does not fit"),
        ([300], "UINT8", "does not fit"),
        ([2**63], "INT64", "does not fit"),
        ([float("nan")], "INT32", "missing"),
        ([1.0, None], "FP32", r"the value at \[1\] is missing"),
        (["a"], "FP32", "is text"),
        ([1], "BYTES", "no text"),
        (np.array([16777217]), "FP32", "does not fit"),
        (np.array([2**64 - 1], np.uint64), "INT64", "does not fit"),
        (np.array([2.0**63]), "INT64", "does not fit"),
        (np.array([1e39]), "FP32", "does not fit"),
        (np.array([np.nan]), "INT64", "missing"),
        (np.array(["a", None]), "BYTES", "missing"),
        (np.ma.masked_array([1, 2], [False, True]), "INT64", r"at \[1\] is masked"),
    ],
)
def test_what_would_be_changed_is_refused(value: Any, datatype: str, complaint: str) -> None:
    with pytest.raises((TypeError, ValueError), match=complaint):
        converted(value, TensorInfo("x", datatype, (None,)))


@pytest.mark.parametrize(
    ("value", "datatype", "expected"),
    [
        ([16777216, 0.1], "FP32", [16777216.0, np.float32(0.1)]),
        ([9007199254740993, 1.0], "INT64", [9007199254740993, 1]),
        ([INF, -INF], "FP16", [INF, -INF]),
        ([2**64 - 1], "UINT64", [2**64 - 1]),
        ([1, 0], "BOOL", [True, False]),
        (np.array([1.0, 2.0]), "INT8", [1, 2]),
        (np.array([2**63], np.uint64), "FP32", [2.0**63]),
        (np.array([1, 2.5], object), "FP32", [1.0, 2.5]),
        ([], "FP32", []),
    ],
)
def test_what_fits_is_converted(value: Any, datatype: str, expected: list[Any]) -> None:
    array = converted(value, TensorInfo("x", datatype, (None,)))
    assert array.dtype == DATATYPES[datatype]
    assert array.tolist() == expected


@pytest.mark.parametrize("value", [["ab\0"], [b"\1\0\0\0"], ["\0"], "a\0", [["a", b"b\0"]]])
def test_nul_bytes_at_the_end_of_text_are_sent(server: OipServer, infer: Infer, value: Any) -> None:
    sent = infer(server, x=value)["x"].reshape(-1).tolist()
    flat = np.asarray(value, object).reshape(-1).tolist()
    assert sent == [each if isinstance(each, bytes) else each.encode() for each in flat]


def test_masked_arrays_and_lone_surrogates_are_refused(server: OipServer, infer: Infer) -> None:
    with pytest.raises(InvalidInput, match="masked"):
        infer(server, x=np.ma.masked_array([1.0], [True]))
    for given in ({"x": ["\ud800"]}, {"id": "\ud800"}, {"parameters": {"p": "\ud800"}}):
        with pytest.raises(InvalidInput, match="UTF-8"):
            infer(server, **given)


def test_a_data_frame_is_all_of_the_only_input(server: OipServer, infer: Infer) -> None:
    server.answers["ModelMetadata"] = signature(x="FP32")
    table = Table(b=[1, 2], a=[0.5, 0.25])
    for given in ({"x": table}, {"inputs": table}):
        result = infer(server, **given)["x"]
        assert result.dtype == np.float32
        assert result.tolist() == [[1, 0.5], [2, 0.25]]


def test_a_data_frame_has_a_column_for_each_of_several_inputs(
    server: OipServer, infer: Infer
) -> None:
    server.answers["ModelMetadata"] = signature(age="INT64", city="BYTES")
    result = infer(server, inputs=Table(city=np.array(["x", "y"], object), age=[1.0, 2.0]))
    assert result["age"].tolist() == [[1], [2]]
    assert result["city"].tolist() == [[b"x"], [b"y"]]


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        (Table(age=[1.0]), "missing: city"),
        (Table(age=[1.0], city=["x"], z=[1]), "unknown: z"),
        (Table(age=[np.nan], city=["x"]), r"column 'age'.*at \[0\] is missing"),
        (Table(age=[1], city=np.array([None], object)), r"column 'city'.*missing"),
    ],
)
def test_columns_and_values_that_are_missing_are_named(
    server: OipServer, infer: Infer, table: Table, complaint: str
) -> None:
    server.answers["ModelMetadata"] = signature(age="INT64", city="BYTES")
    with pytest.raises(InvalidInput, match=complaint):
        infer(server, inputs=table)


def test_one_output_may_be_named_without_a_list(server: OipServer, infer: Infer) -> None:
    infer(server, x=np.ones(1), outputs="scores")
    assert [output.name for output in server.seen.outputs] == ["scores"]


def test_a_model_that_was_replaced_is_asked_again(server: OipServer) -> None:
    def answers() -> Iterator[pb.ModelMetadataResponse]:
        yield signature(x="FP32")
        yield signature(x="FP64")

    server.answers["ModelMetadata"] = answers()
    with Client(server.address) as client:
        server.fail_infer = (grpc.StatusCode.INVALID_ARGUMENT, "not so", "InvalidInput")
        with pytest.raises(InvalidInput):
            client.infer("m", x=[1])
        server.fail_infer = None
        assert client.infer("m", x=[1])["x"].dtype == np.float64
