"""The format of messages between processes: JSON by the types of their fields.

A message is written and read by the type hints of its dataclass. What is read is checked against
them, so that a process that was taken over can send wrong values and nothing else: no type but
the known ones is ever made, and no code is named. Mappings are lists of pairs, because their keys
may be anything; bytes are base64; dtypes have the protocol's names.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from functools import cache
from operator import index
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import numpy as np
from inferd.tensors import DATATYPES, datatype_of
from pydantic import BaseModel

from inferd_server import errors
from inferd_server.errors import InferdError, Unavailable
from inferd_server.models.health_check import TrialVerdict
from inferd_server.processes import messages
from inferd_server.processes.messages import Measured

Json: TypeAlias = Any
Hint: TypeAlias = Any
"""What `get_type_hints` returns: a class, a generic alias, a union, a literal."""
MOST_BYTES = 256 * 1024 * 1024
"""Of one message; a longer one is not read."""
PLAIN: tuple[type, ...] = (bool, int, float, str)


class FormatError(Exception):
    """A message that cannot be written, or that is none."""


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """A message without an answer."""

    body: object


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A message that gets one answer, under its number."""

    number: int
    body: object


@dataclasses.dataclass(frozen=True, slots=True)
class Answered:
    """An answer: a value, or the error that the question led to."""

    number: int
    value: object
    error: InferdError | None


Message: TypeAlias = Told | Asked | Answered


def pack(message: Message) -> bytes:
    """Write a message.

    Raises:
        FormatError: it holds something that no message may hold.
    """
    try:
        return json.dumps(_written(message), separators=(",", ":")).encode()
    except Exception as error:
        raise FormatError(f"a message cannot be written: {error}") from error


def unpack(data: bytes) -> Message:
    """Read a message.

    Raises:
        FormatError: it is none.
    """
    try:
        return _read(json.loads(data))
    except Exception as error:
        raise FormatError(f"not a message: {error}") from error


def _written(message: Message) -> Json:
    match message:
        case Told(body):
            return ["told", _body(body)]
        case Asked(number, body):
            return ["asked", write(int, number), _body(body)]
        case Answered(number, value, error):
            about = None if error is None else _error(error)
            return ["answered", write(int, number), _body(value), about]


def _read(data: Json) -> Message:
    match data:
        case ["told", body]:
            return Told(_body_of(body))
        case ["asked", number, body]:
            return Asked(read(int, number), _body_of(body))
        case ["answered", number, value, error]:
            about = None if error is None else _error_of(error)
            return Answered(read(int, number), _body_of(value), about)
    raise ValueError("neither told, asked nor answered")


def _body(body: object) -> Json:
    if body is None:
        return None
    name = type(body).__name__
    if KINDS.get(name) is not type(body):
        raise TypeError(f"{name} is no message")
    return [name, write(type(body), body)]


def _body_of(data: Json) -> object:
    if data is None:
        return None
    name, body = data
    return read(KINDS[name], body)


def _error(error: InferdError) -> Json:
    # The nearest one that both ends know.
    kind = next((k for k in type(error).__mro__ if ERRORS.get(k.__name__) is k), Unavailable)
    facts = [[write(str, name), write(str, value)] for name, value in error.facts.items()]
    after = None if error.retry_after is None else float(error.retry_after)
    return [kind.__name__, str(error), error.reason, facts, after]


def _error_of(data: Json) -> InferdError:
    name, text, reason, facts, after = data
    return ERRORS[name](
        read(str, text),
        reason=read(str, reason),
        facts=read(Mapping[str, str], facts),
        retry_after=read(float | None, after),
    )


def write(hint: Hint, value: Any) -> Json:
    """Return a value as JSON has it.

    Args:
        hint: its type.
        value: of that type.

    Raises:
        TypeError: it is of another one.
    """
    return _part(hint).write(value)


def read(hint: Hint, data: Json) -> Any:
    """Return the value that `write` wrote.

    Raises:
        TypeError, ValueError: it is of another type.
    """
    return _part(hint).read(data)


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """How values of one type are written and read."""

    write: Callable[[Any], Json]
    read: Callable[[Json], Any]


@cache
def _part(hint: Hint) -> Part:
    origin: Any = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _union([_part(each) for each in get_args(hint)])
    if origin is Literal:
        return _literal(get_args(hint))
    if origin is tuple or (origin is not None and issubclass(origin, Sequence | frozenset)):
        return _sequence(tuple if origin is Sequence else origin, get_args(hint))
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(get_args(hint))
    return _class(origin or hint)


def _class(kind: type) -> Part:
    if kind in SIMPLE:
        return SIMPLE[kind]
    if issubclass(kind, Enum):
        return Part(lambda value: _checked((kind,), value).name, lambda data: kind[data])
    if issubclass(kind, BaseModel):
        return Part(
            lambda value: _checked((kind,), value).model_dump(mode="json"),
            # As JSON again: in strict models a list is a tuple there alone.
            lambda data: kind.model_validate_json(json.dumps(data)),
        )
    if dataclasses.is_dataclass(kind):
        return _fields(kind)
    raise TypeError(f"{kind} is in no message")


def _fields(kind: type) -> Part:
    hints = get_type_hints(kind)
    parts = {field.name: _part(hints[field.name]) for field in dataclasses.fields(kind)}

    def write_all(value: Any) -> Json:
        _checked((kind,), value)
        return {name: part.write(getattr(value, name)) for name, part in parts.items()}

    def read_all(data: Json) -> Any:
        if _checked((dict,), data).keys() != parts.keys():
            raise ValueError(f"these are not the fields of {kind.__name__}")
        return kind(**{name: part.read(data[name]) for name, part in parts.items()})

    return Part(write_all, read_all)


def _union(parts: Sequence[Part]) -> Part:
    def first(functions: Iterator[Callable[[Any], Any]], value: Any) -> Any:
        for function in functions:
            try:
                return function(value)
            except (TypeError, ValueError, LookupError):
                continue
        raise TypeError(f"{type(value).__name__} is none of the types")

    return Part(
        lambda value: first((part.write for part in parts), value),
        lambda data: first((part.read for part in parts), data),
    )


def _literal(values: Sequence[object]) -> Part:
    def known(value: Any) -> Any:
        if value not in values:
            raise ValueError("not one of the values")
        return value

    return Part(known, known)


def _sequence(kind: type, inner: Sequence[Hint]) -> Part:
    if kind is tuple and inner[-1] is not ...:
        parts = [_part(hint) for hint in inner]
        return Part(
            lambda value: [p.write(each) for p, each in zip(parts, value, strict=True)],
            lambda data: tuple(
                p.read(each) for p, each in zip(parts, _checked((list,), data), strict=True)
            ),
        )
    part = _part(inner[0])
    return Part(
        lambda value: [part.write(each) for each in _checked((tuple, list, frozenset), value)],
        lambda data: kind(part.read(each) for each in _checked((list,), data)),
    )


def _mapping(inner: Sequence[Hint]) -> Part:
    # A Counter names its keys alone.
    key, value = _part(inner[0]), _part(inner[1] if len(inner) > 1 else int)
    return Part(
        lambda items: [[key.write(k), value.write(v)] for k, v in items.items()],
        lambda data: {key.read(k): value.read(v) for k, v in _checked((list,), data)},
    )


def _checked(kinds: tuple[type, ...], value: Any) -> Any:
    """Return a value of one of some types, where a boolean is no number."""
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise TypeError(f"{type(value).__name__} is not {kinds[0].__name__}")
    return value


def _exactly(kind: type) -> Part:
    return Part(lambda value: _checked((kind,), value), lambda data: _checked((kind,), data))


SIMPLE: Mapping[type, Part] = {
    str: _exactly(str),
    bool: _exactly(bool),
    types.NoneType: _exactly(types.NoneType),
    # Whatever counts, truth and numpy's numbers among it, is a plain number on its way.
    int: Part(
        lambda value: index(_checked((int, bool, np.integer), value)),
        lambda data: int(_checked((int,), data)),
    ),
    float: Part(
        lambda value: float(_checked((int, bool, float, np.number), value)),
        lambda data: float(_checked((float,), data)),
    ),
    bytes: Part(
        lambda value: base64.b64encode(_checked((bytes,), value)).decode("ascii"),
        lambda data: base64.b64decode(_checked((str,), data), validate=True),
    ),
    np.dtype: Part(datatype_of, lambda data: DATATYPES[_checked((str,), data)]),
}
"""Types without parts."""


def _tree(kind: type[InferdError]) -> Iterator[type[InferdError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _tree(each)


def _kinds() -> Iterator[type]:
    for kind in vars(messages).values():
        if isinstance(kind, type) and kind.__module__ == messages.__name__:
            yield kind
    yield from (Measured, TrialVerdict, bytes, *PLAIN)


KINDS: Mapping[str, type] = {kind.__name__: kind for kind in _kinds()}
"""What a message may be, by name."""
ERRORS: Mapping[str, type[InferdError]] = {
    kind.__name__: kind for kind in _tree(InferdError) if kind.__module__ == errors.__name__
}
"""Errors that an answer may be, by name."""
