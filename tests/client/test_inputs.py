from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inferd.tensors import DATATYPES, Array
from inferd_client.errors import InvalidInput
from inferd_client.information import ModelMetadata, TensorInfo
from inferd_client.inputs import arrays, guess, shape_assignment


def made(
    value: str,
    datatype: str = "FP32",
    shape: tuple[int | None, ...] = (None, 2),
    **options: Any,
) -> Array:
    metadata = ModelMetadata("m", (), "", (TensorInfo("x", datatype, shape),), ())
    return arrays(metadata, [("x", value)], options.pop("shapes", {}), **options)["x"]


@pytest.mark.parametrize("datatype", sorted(DATATYPES))
@pytest.mark.parametrize("value", ["random", "zeros"])
def test_generated_inputs_have_datatype_and_shape_of_the_model(datatype: str, value: str) -> None:
    array = made(value, datatype, (None, 3, None))
    assert (array.dtype, array.shape) == (DATATYPES[datatype], (1, 3, 1))


def test_rows_fill_a_free_first_dimension_only() -> None:
    assert made("zeros", rows=8).shape == (8, 2)
    assert made("zeros", shape=(3, None), rows=8).shape == (3, 1)
    assert made("zeros", shape=(), rows=8).shape == ()


def test_shape_given_wins() -> None:
    assert made("random", shapes={"x": (4, 2)}, rows=8).shape == (4, 2)


def test_literal_is_cast_to_the_datatype() -> None:
    array = made("[[1, 2]]", "FP16")
    assert array.dtype == np.float16
    assert array.tolist() == [[1.0, 2.0]]


def test_files_are_read(tmp_path: Path) -> None:
    values = np.array([[1, 2]], np.float64)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", key=values)
    (tmp_path / "a.json").write_text(json.dumps(values.tolist()))
    for name in ("a.npy", "a.npz:key", "a.json"):
        np.testing.assert_array_equal(made(f"@{tmp_path}/{name}"), values)


@pytest.mark.parametrize(
    ("value", "datatype", "complaint"),
    [
        ("[300]", "UINT8", "does not fit UINT8"),
        ("[-1]", "UINT64", "does not fit UINT64"),
        ("[1.5]", "INT32", "does not fit INT32"),
        ("[NaN]", "INT32", "missing .nan., and INT32"),
        ("[2]", "BOOL", "does not fit BOOL"),
        ('["1"]', "FP32", "is text, and FP32 takes numbers"),
        ("[1]", "BYTES", "is no text"),
        ("[[1], [1, 2]]", "FP32", "inhomogeneous"),
        ("[[16777217]]", "FP32", r"16777217 at \[0, 0\] does not fit FP32"),
        ("[[16777217, 0.5]]", "FP32", r"16777217 at \[0, 0\] does not fit FP32"),
        ("[[70000]]", "FP16", "does not fit FP16"),
        ("[[70000.5]]", "FP16", "does not fit FP16"),
        ("[" * 100_000, "FP32", "recursion"),
        ("[null]", "FP32", "missing"),
        ("nonsense", "FP32", "Expecting value"),
        ("@a.csv", "FP32", r"not \.npy"),
        ("zeros", "FP8", "unknown datatype"),
    ],
)
def test_value_that_does_not_fit_is_refused(value: str, datatype: str, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=f"'x'.*{complaint}"):
        made(value, datatype)


def test_missing_member_of_an_archive_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", key=np.zeros(1))
    with pytest.raises(InvalidInput, match="holds no 'other'"):
        made(f"@{tmp_path}/a.npz:other")


def test_missing_file_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError):
        made("@/nowhere/a.npy")


def test_shape_for_an_unknown_input_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no input 'y'"):
        made("zeros", shapes={"y": (1,)})


def test_whole_numbers_beside_floats_stay_exact() -> None:
    assert made("[[9007199254740993, 1.0]]", "INT64").tolist() == [[9007199254740993, 1]]


@pytest.mark.parametrize("name", ["a.npy", "a.npz:x", "a.json"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"\x93NUMPY\x01\0", b"\xff\xfe"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name.partition(":")[0]).write_bytes(content)
    with pytest.raises(InvalidInput, match="'x'"):
        made(f"@{tmp_path}/{name}")


def test_a_file_that_was_cut_short_is_one_sentence(tmp_path: Path) -> None:
    for name, save in (("a.npy", np.save), ("a.npz", np.savez)):
        save(tmp_path / name, np.arange(1000.0))
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    for name in ("a.npy", "a.npz:arr_0"):
        with pytest.raises(InvalidInput, match="'x'"):
            made(f"@{tmp_path}/{name}")


@pytest.mark.parametrize("value", ["zeros", "random"])
@pytest.mark.parametrize("shape", [(2**40, 2**40), (2**45,)])
def test_a_shape_that_cannot_be_made_is_refused(value: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="'x'"):
        made(value, shapes={"x": shape})


@pytest.mark.parametrize("text", ["x=-1", "x=1,", "x=a", "x=1.5"])
def test_a_shape_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected NAME=1,2,3"):
        shape_assignment(text)


def test_sizes_that_were_guessed_are_named_with_the_flag_that_gives_them() -> None:
    free, fixed = TensorInfo("x", "FP32", (None, None)), TensorInfo("y", "FP32", (None, 2))
    metadata = ModelMetadata("m", (), "", (free, fixed), ())
    values = [("x", "random"), ("y", "random")]
    assert "--shape x=..." in guess(metadata, values, {})
    assert "y" not in guess(metadata, values, {}).split("taken")[0]
    assert guess(metadata, values, {"x": (1, 3)}) == ""
    assert guess(metadata, [("x", "[[1]]")], {}) == ""
