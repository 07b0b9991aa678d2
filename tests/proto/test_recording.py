"""The parts of a recording hold every datatype, and what is no part is refused with a reason."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inferd.recording import (
    NPZ,
    PARQUET,
    PartName,
    Recorded,
    UnreadablePart,
    part_key,
    part_name,
    read_part,
    write_part,
)
from inferd.tensors import DATATYPES, Array

from tests.server.inference.outputs import filled

SUFFIXES = (PARQUET, NPZ)


def same(first: Recorded, second: Recorded) -> bool:
    """Compare all of two requests, their tensors bit for bit."""
    for one, two in ((first.inputs, second.inputs), (first.outputs, second.outputs)):
        assert list(one) == list(two)
        for name in one:
            assert one[name].dtype == two[name].dtype
            assert one[name].shape == two[name].shape
            assert bits(one[name]) == bits(two[name])
    for hidden in ("masked_inputs", "masked_outputs"):
        assert list(getattr(first, hidden)) == list(getattr(second, hidden))
    fields = ("model", "version", "id", "at", "parameters")
    return all(getattr(first, name) == getattr(second, name) for name in fields)


def bits(array: Array) -> object:
    return array.tolist() if array.dtype.hasobject else array.tobytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(DATATYPES)),
            st.lists(st.integers(0, 4), max_size=3).map(tuple),
            st.integers(0, 2**32),
        ),
        max_size=4,
    ),
    st.text(max_size=10),
)
def test_a_part_is_read_as_it_was_written(
    suffix: str, forms: list[tuple[str, tuple[int, ...], int]], text: str
) -> None:
    parameters = {"sequence_id": 2**63 + 5, "start": True, "x": 0.1, "text": text}
    requests = [
        Recorded(text, "3", text, 1.7e9 + 1 / 3, {text: filled(*form)}, {"b": filled(*form)})
        for form in forms
    ]
    requests.append(Recorded("m", "1", "", 0.0, {}, {}, parameters, [text], ["c"]))
    found = list(read_part(write_part(requests, suffix), suffix))
    assert len(found) == len(requests)
    assert all(map(same, found, requests))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_part_without_requests_is_empty(suffix: str) -> None:
    assert list(read_part(write_part((), suffix), suffix)) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("cut", [0, 10, 200])
def test_a_part_that_is_cut_off_is_refused(suffix: str, cut: int) -> None:
    rows = Recorded("m", "1", "", 0.0, {"a": np.zeros(4, ml_dtypes.bfloat16)}, {})
    with pytest.raises(UnreadablePart, match="damaged"):
        list(read_part(write_part([rows], suffix)[:cut], suffix))


def test_parquet_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_part((), PARQUET)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UnreadablePart, match=r"inferd\[monitoring\]"):
        list(read_part(data, PARQUET))


def test_the_name_of_a_part_says_when_it_began_and_how_many_it_has() -> None:
    part = PartName(1_700_000_000.25, 17, NPZ)
    key = part_key("a/b ä", "3", "host-1-42", 7, part)
    assert key == "a%2Fb%20%C3%A4/3/20231114T221320.250000Z-host-1-42-000007-17.npz"
    assert part_name(key) == part


@pytest.mark.parametrize("key", ["x.npz", "m/1/model.onnx", "tmp/0123", ".lock"])
def test_other_files_are_no_parts(key: str) -> None:
    assert part_name(key) is None
