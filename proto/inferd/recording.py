"""The files of a recording: requests with their answers, as a server writes them and tools read.

A recording is a folder, or a place in object storage, of parts, whose names begin with the time of
their first request: MODEL/VERSION/TIME-PROCESS-NUMBER-REQUESTS.SUFFIX. Each part is whole, and
readable alone: Parquet, a row for each request, or an .npz that numpy reads without pickle. In
both, tensors are the bytes that travel in raw contents, so that every datatype stays what it was.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from inferd.tensors import BYTES, DATATYPES, Array, Buffer, datatype_of, decode_bytes, encode_bytes

PARQUET, NPZ = "parquet", "npz"
TIME = "%Y%m%dT%H%M%S.%fZ"
NAME = re.compile(rf"(\d{{8}}T\d{{6}}\.\d{{6}}Z)-.+-\d+-(\d+)\.({PARQUET}|{NPZ})")
"""Of a part, behind the folders of model and version."""
HEAD, DATA = "requests", "tensors"
"""Of an .npz: JSON as bytes, and the bytes of all tensors in its order."""


class UnreadablePart(Exception):
    """A part is damaged, or needs a package that is not installed; the text says which."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request and its answer, as far as they may be known."""

    model: str
    version: str
    id: str
    at: float
    """When the request came, in seconds since the epoch."""
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    parameters: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    """Of the request."""
    masked_inputs: Sequence[str] = ()
    """Those that are left out, or hold something else than what was sent."""
    masked_outputs: Sequence[str] = ()
    """Likewise, of what was answered."""


class PartName(NamedTuple):
    """What the name of a part says."""

    began: float
    """When its first request came, in seconds since the epoch."""
    requests: int
    """How many are in it."""
    suffix: str


def part_key(model: str, version: str, process: str, number: int, part: PartName) -> str:
    """Return where a part is, below the place of the recording.

    Args:
        model: of all its requests.
        version: likewise.
        process: that writes it, a name that no other one has.
        number: of the parts of that process.
        part: what else its name says.
    """
    time = datetime.fromtimestamp(part.began, UTC).strftime(TIME)
    name = f"{time}-{process}-{number:06d}-{part.requests}.{part.suffix}"
    return f"{quote(model, safe='')}/{version}/{name}"


def part_name(key: str) -> PartName | None:
    """Read the name of a part; None if it is something else's."""
    found = NAME.fullmatch(key.rpartition("/")[2])
    if found is None:
        return None
    time, requests, suffix = found.groups()
    began = datetime.strptime(time, TIME).replace(tzinfo=UTC).timestamp()
    return PartName(began, int(requests), suffix)


def write_part(requests: Sequence[Recorded], suffix: str) -> bytes:
    """Return the content of a part; Parquet needs the package pyarrow."""
    return (_write_parquet if suffix == PARQUET else _write_npz)(requests)


def read_part(data: bytes, suffix: str) -> Iterator[Recorded]:
    """Return the requests of a part in their order, each read when it is asked for.

    Raises:
        UnreadablePart: the part is damaged, or pyarrow is needed and not there.
    """
    rows = (_read_parquet if suffix == PARQUET else _read_npz)(data)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except ModuleNotFoundError as error:
            text = "Parquet needs the package pyarrow: pip install 'inferd[monitoring]'"
            raise UnreadablePart(text) from error
        except Exception as error:
            raise UnreadablePart(f"it is damaged: {' '.join(str(error).split())}") from error
        yield row


def _raw(array: Array, datatype: str) -> bytes:
    """Return the elements as they travel in raw contents."""
    if datatype == BYTES:
        return encode_bytes(array)
    return np.ascontiguousarray(array, DATATYPES[datatype]).tobytes()


def _array(datatype: str, shape: Sequence[int], data: Buffer) -> Array:
    if datatype == BYTES:
        return decode_bytes(data, math.prod(shape)).reshape(shape)
    return np.frombuffer(data, np.uint8).view(DATATYPES[datatype]).reshape(shape)


def _tensors(arrays: Mapping[str, Array]) -> Iterator[tuple[str, str, list[int], bytes]]:
    for name, array in arrays.items():
        datatype = datatype_of(array.dtype)
        yield name, datatype, list(array.shape), _raw(array, datatype)


def _about(request: Recorded) -> dict[str, Any]:
    """Return all of a request but its tensors."""
    return {
        "at": request.at,
        "model": request.model,
        "version": request.version,
        "id": request.id,
        "parameters": dict(request.parameters),
        "masked_inputs": list(request.masked_inputs),
        "masked_outputs": list(request.masked_outputs),
    }


def _write_npz(requests: Sequence[Recorded]) -> bytes:
    head, data = [], []
    for request in requests:
        about = _about(request)
        for kind, arrays in (("inputs", request.inputs), ("outputs", request.outputs)):
            about[kind] = []
            for name, datatype, shape, raw in _tensors(arrays):
                about[kind].append([name, datatype, shape, len(raw)])
                data.append(raw)
        head.append(about)
    file = io.BytesIO()
    texts = json.dumps(head).encode(), b"".join(data)
    about_all, tensors = (np.frombuffer(text, np.uint8) for text in texts)
    np.savez(file, requests=about_all, tensors=tensors)
    return file.getvalue()


def _read_npz(data: bytes) -> Iterator[Recorded]:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        head, rest = json.loads(archive[HEAD].tobytes()), memoryview(archive[DATA].tobytes())
    for about in head:
        for kind in ("inputs", "outputs"):
            found = about[kind]
            about[kind] = {}
            for name, datatype, shape, nbytes in found:
                about[kind][name] = _array(datatype, shape, rest[:nbytes])
                rest = rest[nbytes:]
        yield Recorded(**about)


@cache
def _schema() -> Any:
    import pyarrow as pa

    tensor = pa.struct(
        [
            ("name", pa.string()),
            ("datatype", pa.string()),
            ("shape", pa.list_(pa.int64())),
            ("data", pa.large_binary()),
        ]
    )
    return pa.schema(
        [
            ("at", pa.float64()),
            ("model", pa.string()),
            ("version", pa.string()),
            ("id", pa.string()),
            ("parameters", pa.string()),
            ("masked_inputs", pa.list_(pa.string())),
            ("masked_outputs", pa.list_(pa.string())),
            ("inputs", pa.list_(tensor)),
            ("outputs", pa.list_(tensor)),
        ]
    )


def _write_parquet(requests: Iterable[Recorded]) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    names = ("name", "datatype", "shape", "data")
    columns: dict[str, list[Any]] = {field.name: [] for field in _schema()}
    for request in requests:
        row = _about(request)
        row["parameters"] = json.dumps(row["parameters"])
        for kind, arrays in (("inputs", request.inputs), ("outputs", request.outputs)):
            row[kind] = [dict(zip(names, found, strict=True)) for found in _tensors(arrays)]
        for name, values in columns.items():
            values.append(row[name])
    file = io.BytesIO()
    # Tensors repeat nothing that a dictionary would save.
    table = pa.Table.from_pydict(columns, _schema())
    parquet.write_table(table, file, compression="zstd", use_dictionary=["model", "version"])
    return file.getvalue()


def _read_parquet(data: bytes) -> Iterator[Recorded]:
    import pyarrow as pa
    from pyarrow import parquet

    file = parquet.ParquetFile(pa.BufferReader(data))
    for batch in file.iter_batches(batch_size=64):
        for row in batch.to_pylist():
            row["parameters"] = json.loads(row["parameters"])
            for kind in ("inputs", "outputs"):
                row[kind] = {
                    one["name"]: _array(one["datatype"], one["shape"], one["data"])
                    for one in row[kind]
                }
            yield Recorded(**row)
