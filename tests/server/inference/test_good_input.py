"""Good requests over a real socket to real models: what comes back is right to the bit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from inferd.oip.v2.inference_pb2 import InferParameter
from inferd.tensors import CONTENTS_FIELDS, DATATYPES, Array

from tests.server.inference.served import DATATYPES as NAMES
from tests.server.inference.served import simple
from tests.server.serving import Running, arrays, infer_request, rows

FORMS = [
    (name, typed)
    for name in NAMES
    for typed in (False, True)
    if name in CONTENTS_FIELDS or not typed
]
each_form = pytest.mark.parametrize(("datatype", "typed"), FORMS)


def sample(datatype: str, shape: tuple[int, ...]) -> Array:
    """Values that tell elements apart, with the extremes of the datatype among them."""
    count = int(np.prod(shape))
    dtype = DATATYPES[datatype]
    if datatype == "BYTES":
        texts = [
            b"",
            "\N{SNOWMAN}".encode(),
            b"a" * 300,
            b"\x00",
            *[b"%d" % i for i in range(count)],
        ]
        values = np.empty(count, dtype=object)
        values[:] = texts[:count]
        return values.reshape(shape)
    if datatype == "BOOL":
        return (np.arange(count) % 3 == 0).reshape(shape)
    if dtype.kind in "iu":
        ends = [np.iinfo(dtype).min, np.iinfo(dtype).max]
        return np.resize(np.array([*ends, 1, 2, 3], dtype=dtype), shape)
    return (np.arange(count) / 4 - 1).astype(dtype).reshape(shape)


def assert_comes_back(server: Running, model: str, array: Array, typed: bool) -> None:
    response = server.infer(infer_request(model, {"INPUT0": array}, typed=typed, ident="id"))
    assert (response.model_name, response.model_version, response.id) == (model, "1", "id")
    returned = arrays(response)["OUTPUT0"]
    assert returned.dtype == array.dtype
    np.testing.assert_array_equal(returned, array)


@each_form
def test_rows_of_every_datatype_come_back(served: Running, datatype: str, typed: bool) -> None:
    for count in (1, 5):
        assert_comes_back(served, f"rows_{datatype}", sample(datatype, (count, 4)), typed)


@each_form
def test_a_scalar_of_every_datatype_comes_back(served: Running, datatype: str, typed: bool) -> None:
    assert_comes_back(served, f"scalar_{datatype}", sample(datatype, ()), typed)


@each_form
def test_a_model_without_a_batch_dimension_answers(
    served: Running, datatype: str, typed: bool
) -> None:
    assert_comes_back(served, f"one_{datatype}", sample(datatype, (3,)), typed)


@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 0, 3), (2, 3, 0), (0, 0, 0)])
@pytest.mark.parametrize("typed", [False, True])
def test_a_dimension_may_be_zero(served: Running, shape: tuple[int, ...], typed: bool) -> None:
    inputs = {"INPUT0": np.empty(shape, np.float32), "INPUT1": np.empty(shape, object)}
    outputs = arrays(served.infer(infer_request("free_anywhere", inputs, typed=typed)))
    assert {name: array.shape for name, array in outputs.items()} == {
        "OUTPUT0": shape,
        "OUTPUT1": shape,
    }


def test_rows_of_no_elements_keep_their_number(served: Running) -> None:
    outputs = arrays(served.infer(infer_request("free", {"INPUT0": np.empty((3, 0), np.float32)})))
    assert outputs["OUTPUT0"].shape == (3, 0)


def test_inputs_are_matched_by_name_and_not_by_place(served: Running) -> None:
    request = simple()
    request.inputs.reverse()
    contents = list(request.raw_input_contents)
    del request.raw_input_contents[:]
    request.raw_input_contents.extend(reversed(contents))
    outputs = arrays(served.infer(request))
    np.testing.assert_array_equal(outputs["OUTPUT1"], np.arange(16).reshape(1, 16) - 1)


@pytest.mark.parametrize("wanted", [("OUTPUT1",), ("OUTPUT1", "OUTPUT0"), ("OUTPUT0",)])
def test_outputs_come_in_the_order_asked_for(served: Running, wanted: tuple[str, ...]) -> None:
    request = simple()
    for name in wanted:
        request.outputs.add(name=name)
    outputs = arrays(served.infer(request))
    assert tuple(outputs) == wanted
    expected = {"OUTPUT0": np.arange(16) + 1, "OUTPUT1": np.arange(16) - 1}
    for name, array in outputs.items():
        np.testing.assert_array_equal(array[0], expected[name])


@pytest.mark.parametrize(
    ("version", "factor", "served_by"), [("", 3, "3"), ("1", 2, "1"), ("3", 3, "3")]
)
def test_the_version_asked_for_answers_and_the_highest_by_default(
    served: Running, version: str, factor: int, served_by: str
) -> None:
    response = served.infer(infer_request("scaled", rows(1.0, 2.0), version=version))
    assert response.model_version == served_by
    np.testing.assert_array_equal(arrays(response)["OUTPUT0"][:, 0], [factor, 2 * factor])


def test_free_dimensions_may_differ_from_request_to_request(served: Running) -> None:
    for size in (1, 7, 3, 1000):
        array = np.arange(2 * size, dtype=np.float32).reshape(2, size)
        outputs = arrays(served.infer(infer_request("free", {"INPUT0": array})))
        np.testing.assert_array_equal(outputs["OUTPUT0"], array * 2)


def test_a_tensor_of_64_megabytes_comes_back(served: Running) -> None:
    array = np.random.default_rng(0).standard_normal((1, 16 * 2**20)).astype(np.float32)
    outputs = arrays(served.infer(infer_request("big", {"INPUT0": array})))
    assert outputs["OUTPUT0"].tobytes() == array.tobytes()


def test_callers_at_once_each_get_their_own_answer(served: Running) -> None:
    def ask(value: int) -> bool:
        count = value % 3 + 1
        array = np.full((count, 4), value, dtype=np.float32)
        outputs = arrays(served.infer(infer_request("scaled", {"INPUT0": array})))
        return bool((outputs["OUTPUT0"] == array * 3).all()) and outputs["OUTPUT0"].shape == (
            count,
            4,
        )

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(400)))


@pytest.mark.parametrize("field", ["int64_param", "uint64_param"])
@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [[b"9.000000:2:two"], [b"7.000000:0:zero"]]),
        (
            4,
            [
                [b"9.000000:2:two", b"4.000000:3", b"2.500000:1:one", b"-1.000000:0:zero"],
                [b"7.000000:0:zero", b"7.000000:1:one", b"6.000000:2:two", b"0.000000:3"],
            ],
        ),
    ],
)
def test_classification_names_the_best_classes(
    served: Running, field: str, count: int, expected: list[list[bytes]]
) -> None:
    scores = np.array([[-1, 2.5, 9, 4], [7, 7, 6, 0]], dtype=np.float32)
    request = infer_request("rows_FP32", {"INPUT0": scores}, outputs=("OUTPUT0",))
    request.outputs[0].parameters["classification"].CopyFrom(InferParameter(**{field: count}))
    assert arrays(served.infer(request))["OUTPUT0"].tolist() == expected


def test_more_classes_than_there_are_gives_all_of_them_without_labels(served: Running) -> None:
    scores = np.array([[1, 3, 2, 2**53]], dtype=np.int64)
    request = infer_request("rows_INT64", {"INPUT0": scores}, outputs=("OUTPUT0",))
    request.outputs[0].parameters["classification"].int64_param = 99
    answer = arrays(served.infer(request))["OUTPUT0"].tolist()
    assert answer == [[b"9007199254740992:3", b"3:1", b"2:2", b"1:0"]]


def test_empty_contents_beside_raw_contents_say_nothing(served: Running) -> None:
    request = simple()
    for given in request.inputs:
        given.contents.SetInParent()
    assert arrays(served.infer(request))["OUTPUT0"].shape == (1, 16)


def test_an_output_that_is_asked_for_twice_is_answered_once(served: Running) -> None:
    request = infer_request("rows_FP32", rows(1.0), outputs=("OUTPUT0", "OUTPUT0"))
    response = served.infer(request)
    assert [output.name for output in response.outputs] == ["OUTPUT0"]
    assert len(response.raw_output_contents) == 1
