"""Rows that are not the model's are refused with a sentence that names what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from inferd_engines.conversion.errors import BadData, Unsupported
from inferd_engines.conversion.rows import BATCH, Rows, read_rows
from inferd_engines.engine import Array, Signature, Tensor

FP32 = np.dtype(np.float32)
ROWS = np.zeros((6, 4), np.float32)


def signature(*shapes: tuple[int | None, ...]) -> Signature:
    return Signature(tuple(Tensor(f"x{n}", FP32, shape) for n, shape in enumerate(shapes)), ())


def read(folder: Path, wanted: Signature, **arrays: Array) -> Rows:
    np.savez(folder / "rows.npz", **arrays)  # type: ignore[arg-type]
    return read_rows(folder / "rows.npz", wanted)


def with_nan() -> Array:
    array = ROWS.copy()
    array[4, 1] = np.nan
    return array


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (ROWS[:, :3], r"'x0' has shape \[6, 3\], not \[\?, 4\]"),
        (ROWS[0], r"'x0' has shape \[4\], not \[\?, 4\]"),
        (ROWS.astype(np.float64), "'x0' is float64, and the model takes float32"),
        (ROWS[:0], "'x0' is empty"),
        (with_nan(), "'x0' has NaN or infinity in row 4"),
    ],
)
def test_an_array_that_is_not_rows_of_its_input(
    tmp_path: Path, array: Array, sentence: str
) -> None:
    with pytest.raises(BadData, match=sentence):
        read(tmp_path, signature((None, 4)), x0=array)


def test_an_input_without_an_array(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="has no array 'x0', which is an input; it has y"):
        read(tmp_path, signature((None, 4)), y=ROWS)


def test_inputs_with_other_numbers_of_rows(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="'x0' has 6, 'x1' has 5"):
        read(tmp_path, signature((None, 4), (None, 4)), x0=ROWS, x1=ROWS[:5])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"text"])
def test_a_file_that_is_no_npz(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.npz"
    path.write_bytes(content)
    with pytest.raises(BadData, match=r"rows\.npz is no \.npz file of arrays"):
        read_rows(path, signature((None, 4)))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="does not exist"):
        read_rows(tmp_path / "none.npz", signature((None, 4)))


def test_an_input_without_dimensions_has_no_rows(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="single value"):
        read(tmp_path, signature(()), x0=np.float32(1))


def test_a_model_of_a_fixed_batch_gets_whole_batches(tmp_path: Path) -> None:
    rows = read(tmp_path, signature((3, 4)), x0=ROWS)
    assert [len(one["x0"]) for one in rows.batches()] == [3, 3]
    with pytest.raises(BadData, match="has 5 rows, and the model takes 3 a run"):
        read(tmp_path, signature((3, 4)), x0=ROWS[:5])


def test_the_last_run_of_a_free_batch_has_what_is_left(tmp_path: Path) -> None:
    rows = read(tmp_path, signature((None, 4)), x0=np.zeros((BATCH + 1, 4), np.float32))
    assert [len(one["x0"]) for one in rows.batches()] == [BATCH, 1]
