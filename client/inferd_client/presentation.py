"""A result as text, as JSON and as a file."""

from __future__ import annotations

import math
import zipfile
from typing import Any

import numpy as np
from inferd.tensors import Array, datatype_of

from inferd_client import tables
from inferd_client.errors import InvalidResponse
from inferd_client.results import Result

# As the JSON mapping of protobuf writes them; JSON has no such numbers.
_NOT_FINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}


def as_text(result: Result) -> str:
    """Return a heading and a line for each output: name, dtype, shape and a few values."""
    rows = [
        (name, datatype_of(array.dtype), str(list(array.shape)), abbreviated(array))
        for name, array in result.items()
    ]
    heading = f"{result.model_name} version {result.model_version}"
    return f"{heading}\n{tables.render(('NAME', 'DATATYPE', 'SHAPE', 'VALUES'), rows)}"


def abbreviated(array: Array) -> str:
    """Return the values on one line, the middle left out where there are many."""
    text = np.array2string(array, threshold=12, edgeitems=3, separator=", ", precision=6)
    return " ".join(text.split())


def as_json(result: Result) -> dict[str, Any]:
    """Return what `json.dumps` takes: who answered, and every output in full.

    BYTES that are not UTF-8 are written with backslash escapes; NaN and the infinities are
    the strings "NaN", "Infinity" and "-Infinity".
    """
    outputs = {
        name: {
            "datatype": datatype_of(array.dtype),
            "shape": list(array.shape),
            "data": _plain(array.tolist()),
        }
        for name, array in result.items()
    }
    return {
        "model_name": result.model_name,
        "model_version": result.model_version,
        "id": result.id,
        "parameters": dict(result.parameters),
        "outputs": outputs,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, float) and not math.isfinite(value):
        return _NOT_FINITE.get(value, "NaN")
    return value


def save(result: Result, path: str) -> None:
    """Write every output into a .npz that numpy reads without pickle.

    Raises:
        InvalidResponse: numpy's S cannot hold a BYTES element (it ends with a NUL byte).
        OSError: the file cannot be written.
    """
    # Not np.savez: an output may be called "file".
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in result.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, _portable(name, array), allow_pickle=False)


def _portable(name: str, array: Array) -> Array:
    datatype = datatype_of(array.dtype)
    if datatype == "BF16":
        return array.astype(np.float32)
    if datatype != "BYTES":
        return array
    text = array.astype(np.bytes_)
    if text.tolist() != array.tolist():
        raise InvalidResponse(f"output {name!r} ends with NUL bytes, which numpy would drop")
    return text
