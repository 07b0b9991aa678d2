"""Classification: one rule for every shape, and no work beyond what is asked for."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import grpc
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd.oip.v2.inference_pb2 import ModelInferRequest, ModelInferResponse
from inferd.tensors import Array
from inferd_engines.engine import Tensor
from inferd_server.errors import InvalidInput
from inferd_server.front.classification import check_classes, classify, highest
from inferd_server.worker.inline import InlineLoop
from onnx import ModelProto, helper, numpy_helper

from tests import models
from tests.server.serving import (
    PATIENCE,
    arrays,
    infer_request,
    rows,
    running,
    running_split,
)

FLOAT = np.dtype(np.float32)


def best(array: Array, count: int = 1, *, batched: bool = True) -> list[object]:
    found: list[object] = classify(array, count, (), batched=batched).tolist()
    return found


@pytest.mark.parametrize(
    ("dtype", "row", "first"),
    [
        (np.int64, [2**53, 2**53 + 1], b"9007199254740993:1"),
        (np.uint64, [2**64 - 2, 2**64 - 1], b"18446744073709551615:1"),
        (np.int8, [-128, -127, -128], b"-127:1"),
        (np.uint8, [0, 0, 0], b"0:0"),
        (np.float16, [0.5, 1.5], b"1.500000:1"),
        (np.float32, [np.nan, -np.inf, -5.0], b"-5.000000:2"),
        (np.float32, [np.nan, np.nan, np.nan], b"nan:0"),
        (ml_dtypes.bfloat16, [1.0, 3.0, 2.0], b"3.000000:1"),
    ],
)
def test_the_highest_score_is_found_in_every_datatype(
    dtype: type, row: list[float], first: bytes
) -> None:
    assert best(np.array([row], dtype=dtype)) == [[first]]


@pytest.mark.parametrize(
    ("shape", "batched", "expected"),
    [
        ((2, 5), True, (2, 2)),
        ((2, 5, 1, 1), True, (2, 2)),
        ((2, 2, 3), True, (2, 2)),
        ((3,), True, (3, 1)),
        ((0, 3), True, (0, 2)),
        ((2, 0), True, (2, 0)),
        ((2, 3), False, (2,)),
        ((1, 5, 1, 1), False, (2,)),
        ((2, 0), False, (0,)),
        ((3,), False, (2,)),
        ((), False, (1,)),
    ],
)
def test_behind_the_batch_everything_is_one_set(
    shape: tuple[int, ...], batched: bool, expected: tuple[int, ...]
) -> None:
    scores = np.zeros(shape, dtype=np.float32)
    assert classify(scores, 2, (), batched=batched).shape == expected


def test_classes_are_numbered_in_row_major_order_and_so_are_their_labels() -> None:
    scores = np.array([[[0.0, 1.0], [4.0, 2.0]]], dtype=np.float32)
    found = classify(scores, 3, ("a", "b", "c"), batched=True).tolist()
    assert found == [[b"4.000000:2:c", b"2.000000:3", b"1.000000:1:b"]]


@given(
    st.lists(st.sampled_from([0.0, 1.0, -1.0, 2.0, np.nan, np.inf, -np.inf]), max_size=12),
    st.integers(0, 14),
)
def test_a_part_of_the_order_is_the_beginning_of_the_whole(scores: list[float], count: int) -> None:
    array = np.array(scores, dtype=np.float32)
    whole = np.argsort(-array.astype(np.float64), kind="stable")
    assert highest(array, count).tolist() == whole[:count].tolist()


def test_only_as_many_classes_are_written_as_are_asked_for() -> None:
    scores = np.arange(2_000_000, dtype=np.float32).reshape(1, -1)
    assert best(scores, 2) == [[b"1999999.000000:1999999", b"1999998.000000:1999998"]]


@pytest.mark.parametrize(
    ("shape", "rows_", "batched", "count", "fits"),
    [
        ((None, 100_000), 1, True, 100_000, True),
        ((None, 60_000), 2, True, 60_000, False),
        ((None, 60_000), 2, True, 5, True),
        ((None, 3), 2, True, 10**9, True),
        ((None, None), 2, True, 10**9, True),
        ((400, 400), 1, False, 10**6, False),
    ],
)
def test_more_classes_than_may_be_are_refused_before_the_run(
    shape: tuple[int | None, ...], rows_: int, batched: bool, count: int, fits: bool
) -> None:
    tensor = Tensor("OUTPUT0", FLOAT, shape)
    if fits:
        check_classes(tensor, count, rows_, batched=batched)
        return
    with pytest.raises(InvalidInput, match=r"output 'OUTPUT0': the answer would have \d+ classes"):
        check_classes(tensor, count, rows_, batched=batched)


def test_more_classes_than_may_be_are_refused_after_a_run_that_nobody_could_foresee() -> None:
    with pytest.raises(InvalidInput, match="at most 100000"):
        classify(np.zeros((2, 60_000), np.float32), 60_000, (), batched=True, name="OUTPUT0")


def widened(classes: int) -> ModelProto:
    """INPUT0 FP32 [batch, 1] plus 0, 1, 2, ... is OUTPUT0 FP32 [batch, classes]."""
    weight = numpy_helper.from_array(np.arange(classes, dtype=np.float32), "rising")
    node = helper.make_node("Add", ["INPUT0", "rising"], ["OUTPUT0"])
    given_, made = (
        models.tensor(name, "FP32", ("batch", size))
        for name, size in (("INPUT0", 1), ("OUTPUT0", classes))
    )
    return models.model([node], [given_], [made], [weight])


def classes_of(model: str, count: int, batch: int = 1) -> ModelInferRequest:
    request = infer_request(model, {"INPUT0": np.ones((batch, 1), np.float32)})
    request.outputs.add(name="OUTPUT0").parameters["classification"].int64_param = count
    return request


def shape_of(response: ModelInferResponse) -> list[int]:
    return list(response.outputs[0].shape)


@pytest.mark.parametrize("start", [running, running_split], ids=["one process", "split"])
def test_many_classes_of_many_rows_are_answered_in_every_arrangement(
    tmp_path: Path, start: type
) -> None:
    models.repository(tmp_path, {"wide": widened(60_000)})
    with start(tmp_path) as server:
        answer = server.infer(classes_of("wide", 2, 32))
        assert arrays(answer)["OUTPUT0"].tolist()[31] == [
            b"60000.000000:59999",
            b"59999.000000:59998",
        ]
        assert shape_of(server.infer(classes_of("wide", 60_000))) == [1, 60_000]
        error = server.refused(classes_of("wide", 60_000, 32))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "1920000 classes; at most 100000" in error.details()


@pytest.mark.parametrize("inline", [True, False], ids=["inline", "threads"])
def test_nobody_waits_while_many_classes_are_written(tmp_path: Path, inline: bool) -> None:
    models.repository(tmp_path, {"wide": widened(2000), "scaled": models.scale(2.0)})
    loop = InlineLoop(time.monotonic) if inline else None
    with running(tmp_path, inline=loop) as server:
        writes = threading.Event()
        assert server.server is not None
        server.server.endpoint.infer._answering.formatting._thread.submit(0, writes.wait)
        many = server.stub.ModelInfer.future(classes_of("wide", 2000), timeout=PATIENCE)
        few = server.infer(classes_of("wide", 3))
        assert shape_of(few) == [1, 3]
        assert arrays(server.infer(infer_request("scaled", rows(1.0))))["OUTPUT0"][0, 0] == 2
        assert not many.done()
        writes.set()
        assert shape_of(many.result()) == [1, 2000]


def test_what_waits_to_be_written_is_bounded(tmp_path: Path) -> None:
    models.repository(tmp_path, {"wide": widened(2000)})
    with running(tmp_path) as server:
        writes = threading.Event()
        assert server.server is not None
        server.server.endpoint.infer._answering.formatting._thread.submit(2**40, writes.wait)
        error = server.refused(classes_of("wide", 2000))
        writes.set()
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert shape_of(server.infer(classes_of("wide", 2000))) == [1, 2000]


@pytest.mark.parametrize("start", [running, running_split], ids=["one process", "split"])
def test_one_number_a_row_is_one_set_a_row(tmp_path: Path, start: type) -> None:
    node = helper.make_node("Squeeze", ["INPUT0", "axes"], ["OUTPUT0"])
    axes = numpy_helper.from_array(np.array([1], dtype=np.int64), "axes")
    model = models.model(
        [node],
        [models.tensor("INPUT0", "FP32", ("batch", 1))],
        [models.tensor("OUTPUT0", "FP32", ("batch",))],
        [axes],
    )
    models.repository(tmp_path, {"flat": model})
    with start(tmp_path) as server:
        answer = server.infer(classes_of("flat", 3, 2))
        assert shape_of(answer) == [2, 1]
        assert arrays(answer)["OUTPUT0"].tolist() == [[b"1.000000:0"], [b"1.000000:0"]]
