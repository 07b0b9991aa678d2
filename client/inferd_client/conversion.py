"""Values of Python as arrays of a model's datatypes: numbers, lists, arrays, columns of tables.

Floats may be rounded. A whole number is never changed, and nothing becomes infinite: what does
not fit is refused by a sentence that says where it stands.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
from inferd.tensors import BYTES, Array

from inferd_client.information import TensorInfo

Kind: TypeAlias = np.dtype[Any]

_MANTISSA: dict[Kind, int] = {
    np.dtype(np.float16): 10,
    np.dtype(np.float32): 23,
    np.dtype(np.float64): 52,
    np.dtype(ml_dtypes.bfloat16): 7,
}
"""Bits behind the point."""

# Types of pandas for what is missing; pandas itself is not needed here.
_MISSING = ("NAType", "NaTType")


def is_typed(value: object) -> bool:
    """Tell whether a value says itself which datatype it is; Python's own values do not."""
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind not in "OT"
    return not isinstance(value, bool | int | float | str | bytes | list | tuple)


def whole(value: Any) -> Array:
    """Return a value as an array, text as objects of Python.

    numpy's own arrays of text drop NUL bytes at the end of an element.

    Raises:
        ValueError: it is ragged, or masked.
    """
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        place = _place(np.ma.getmaskarray(value))
        raise ValueError(f"the value at {place} is masked; fill it first (.filled(value))")
    array = np.asarray(value)
    plain = isinstance(value, np.ndarray | np.generic) and array.dtype.kind in "SU"
    return array if plain or array.dtype.kind not in "SUT" else np.asarray(value, np.object_)


def require_elements(array: Array) -> None:
    """Refuse objects that no datatype carries.

    Raises:
        TypeError, ValueError: says which, and where it stands.
    """
    if array.dtype.kind != "O":
        return
    for index, element in _placed(array):
        if _is_missing(element, nan=False):
            raise ValueError(f"the value at {index} is missing ({element!r})")
        if isinstance(element, int) and not -(2**63) <= element < 2**64:
            raise ValueError(f"{element} at {index} fits no datatype")
        if not isinstance(element, numbers.Real | str | bytes):
            kind = type(element).__name__
            raise TypeError(f"BYTES elements are bytes or str, not {kind} (at {index})")


def converted(value: Any, info: TensorInfo) -> Array:
    """Return a value of any kind as an array of an input's datatype.

    Raises:
        TypeError: text where numbers belong, or the reverse.
        ValueError: it cannot be one without a change; says what stands where.
        KeyError: the server named a datatype that the protocol does not have.
    """
    array = whole(value)
    if info.datatype == BYTES:
        return _text(array)
    if array.dtype.kind in "SU" or not _is_number(array.dtype):
        return _one_by_one(np.asarray(value, np.object_), info)
    # Among floats Python's whole numbers are floats as well.
    mixed = not isinstance(value, np.ndarray | np.generic) and array.dtype.kind == "f"
    if mixed and not (_is_float(info.dtype) and _within(array, info.dtype)):
        return _one_by_one(np.asarray(value, np.object_), info)
    return _cast(array, info)


def _cast(array: Array, info: TensorInfo) -> Array:
    if array.dtype == info.dtype:
        return array
    with np.errstate(all="ignore"):
        result = array.astype(info.dtype)
    wrong = _changed(array, result)
    if wrong.any():
        place = _place(wrong)
        raise ValueError(_does_not_fit(array[tuple(place)].item(), place, info.datatype))
    return result


def _changed(before: Array, after: Array) -> Array:
    """Return True for elements that a cast changed by more than rounding."""
    if _is_float(after.dtype):
        overflow = np.isinf(after) & ~np.isinf(before)
        if _is_float(before.dtype) or before.dtype.kind == "b" or _within(before, after.dtype):
            return np.asarray(overflow)
        wrong = [math.isinf(new) or int(new) != old for old, new in _pairs(before, after)]
        return np.array(wrong, np.bool_).reshape(before.shape)
    if after.dtype.kind == "b":
        return np.asarray((before != 0) & (before != 1))
    info = np.iinfo(after.dtype)
    if not _is_float(before.dtype):
        return np.asarray((before < info.min) | (before > info.max))
    wide = before.astype(np.float64)
    inside = (wide >= float(info.min)) & (wide < float(info.max) + 1)
    return np.asarray(~inside | (wide != np.trunc(wide)))


def _pairs(before: Array, after: Array) -> Iterable[tuple[int, float]]:
    return zip(
        before.reshape(-1).tolist(), after.astype(np.float64).reshape(-1).tolist(), strict=True
    )


def _one_by_one(objects: Array, info: TensorInfo) -> Array:
    require_elements(objects)
    elements = [_number(element, index, info) for index, element in _placed(objects)]
    return np.array(elements, info.dtype).reshape(objects.shape)


def _number(element: Any, index: list[int], info: TensorInfo) -> Any:
    if isinstance(element, str | bytes):
        raise TypeError(f"{element!r} at {index} is text, and {info.datatype} takes numbers")
    if _is_float(info.dtype):
        fits = _fits_float(element, info.dtype)
    elif info.dtype.kind == "b":
        fits = element in (0, 1)
    else:
        limits = np.iinfo(info.dtype)
        fits = math.isfinite(element) and limits.min <= element <= limits.max
        fits = fits and element == int(element)
    if not fits:
        raise ValueError(_does_not_fit(element, index, info.datatype))
    return element if _is_float(info.dtype) else int(element)


def _fits_float(element: Any, kind: Kind) -> bool:
    with np.errstate(over="ignore"):
        rounded = float(np.float64(element).astype(kind))
    if math.isinf(rounded):
        return math.isinf(element)
    return not isinstance(element, numbers.Integral) or int(rounded) == element


def _text(array: Array) -> Array:
    if array.dtype.kind in "SU":
        return array
    array = array.astype(np.object_)
    for index, element in _placed(array):
        if _is_missing(element, nan=True):
            raise ValueError(f"the value at {index} is missing ({element!r})")
        if not isinstance(element, str | bytes):
            raise TypeError(f"{element!r} at {index} is no text, and BYTES takes str and bytes")
    return array


def _does_not_fit(element: object, place: list[int], datatype: str) -> str:
    if isinstance(element, float) and math.isnan(element):
        return f"the value at {place} is missing (nan), and {datatype} has no such value"
    return f"{element!r} at {place} does not fit {datatype} without a change"


def _is_missing(element: object, *, nan: bool) -> bool:
    if element is None or type(element).__name__ in _MISSING:
        return True
    return nan and isinstance(element, float) and math.isnan(element)


def _is_number(kind: Kind) -> bool:
    return kind.kind in "iub" or _is_float(kind)


def _is_float(kind: Kind) -> bool:
    return kind.kind == "f" or kind == ml_dtypes.bfloat16


def _within(array: Array, kind: Kind) -> bool:
    """Tell whether a float type holds every whole number of that size."""
    limit = 2 << _MANTISSA[kind]
    if not array.size:
        return True
    return bool(-limit <= array.min() and array.max() <= limit)


def _placed(array: Array) -> Iterable[tuple[list[int], Any]]:
    for index in np.ndindex(array.shape):
        yield list(index), array[index]


def _place(wrong: Array) -> list[int]:
    return [int(axis) for axis in np.argwhere(wrong)[0]]
