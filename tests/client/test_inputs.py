from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inferd.tensors import DATATYPES, Array
from inferd_client.errors import InvalidInput
from inferd_client.information import ModelMetadata, TensorInfo
from inferd_client.inputs import arrays


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
        ("[300]", "UINT8", "do not fit UINT8"),
        ("[-1]", "UINT64", "do not fit UINT64"),
        ("[1.5]", "INT32", "do not fit INT32"),
        ("[NaN]", "INT32", "do not fit INT32"),
        ("[2]", "BOOL", "do not fit BOOL"),
        ('["1"]', "FP32", "do not become FP32"),
        ("[1]", "BYTES", "do not become BYTES"),
        ("[[1], [1, 2]]", "FP32", "inhomogeneous"),
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
