"""Templates: a request that looks exactly like one seen before needs no parsing.

A message is name and version, then the id, then the rest. Two messages with the same name and
version bytes and equally long rests, whose rests are equal byte by byte outside the payloads of
the first one, hold the same fields: the payloads' tags and lengths are among the bytes compared.
So whatever was found out about the first is true of the second, but for its id and payloads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from inferd.tensors import Buffer

from inferd_server.front.wire import RAW_INPUT_TAG, walk

T = TypeVar("T")

FRONT = NAME, VERSION, ID = 0x0A, 0x12, 0x1A
"""Tags of the first three fields, each with a length after it."""

NUMBERS = tuple(tag >> 3 for tag in FRONT)
SMALL = 4096
"""Bytes up to which a copy is cheaper than a view."""


Parts: TypeAlias = tuple[int, int]
"""Where a message's name and version end, and where its id does: there its rest begins."""


def split(message: bytes) -> Parts | None:
    """Find the parts of a message; None if it does not begin with a name.

    Only fields in the order of their numbers and shorter than 128 bytes are recognised,
    which is what every client sends.
    """
    head = after(message, 0, NAME)
    if not head:
        return None
    # Most messages go on with an input: every request passes here.
    if head < len(message) and message[head] > ID:
        return head, head
    head = after(message, head, VERSION)
    return head, after(message, head, ID)


def after(message: bytes, begin: int, tag: int) -> int:
    """Return where a short field ends; `begin` if there is none of this tag."""
    if begin + 1 >= len(message) or message[begin] != tag:
        return begin
    length = message[begin + 1]
    end = begin + 2 + length
    return begin if length > 127 or end > len(message) else end


@dataclass(frozen=True, slots=True)
class Template(Generic[T]):
    """The bytes of a message's rest outside its payloads, and what is known of such messages.

    `fixed` are (offset, bytes), `payloads` (offset, size), both from the start of the rest.
    """

    fixed: tuple[tuple[int, bytes], ...]
    payloads: tuple[tuple[int, int], ...]
    known: T

    def elements(self, message: bytes, rest: int, index: int) -> Buffer:
        """Return one of a fitting message's payloads, copied if that is cheaper than a view."""
        offset, size = self.payloads[index]
        begin = rest + offset
        if size <= SMALL:
            return message[begin : begin + size]
        return memoryview(message)[begin : begin + size]


def learn(message: bytes, rest: int, known: T) -> Template[T] | None:
    """Make a template of a message that was checked; None if it is too unusual for one.

    Args:
        message: to be recognised from now on.
        rest: where its rest begins.
        known: what to remember.
    """
    fields = walk(message)
    # A name, version or id in the rest would replace those at the front.
    if fields is None or any(f.start >= rest and f.tag >> 3 in NUMBERS for f in fields):
        return None
    payloads = [field for field in fields if field.tag == RAW_INPUT_TAG]
    fixed = []
    mark = rest
    for payload in payloads:
        fixed.append((mark - rest, message[mark : payload.begin]))
        mark = payload.end
    fixed.append((mark - rest, message[mark:]))
    return Template(
        tuple((offset, data) for offset, data in fixed if data),
        tuple((field.begin - rest, field.end - field.begin) for field in payloads),
        known,
    )


class TemplateCache(Generic[T]):
    """Templates by name and version bytes and length of the rest; bounded. One thread only."""

    def __init__(self, limit: int = 256, longest: int = 4096) -> None:
        """Be empty.

        Args:
            limit: templates to keep; the oldest goes first.
            longest: bytes outside payloads that are worth keeping.
        """
        self._limit = limit
        self._longest = longest
        self._templates: dict[tuple[bytes, int], list[Template[T]]] = {}
        self._count = 0

    def find(self, message: bytes, parts: Parts) -> Template[T] | None:
        """Return the template that a message of these parts fits."""
        head, rest = parts
        for template in self._templates.get((message[:head], len(message) - rest), ()):
            for offset, data in template.fixed:
                if not message.startswith(data, rest + offset):
                    break
            else:
                return template
        return None

    def add(self, message: bytes, parts: Parts, template: Template[T]) -> None:
        """Remember a template, unless it is too long."""
        if sum(len(data) for _, data in template.fixed) > self._longest:
            return
        if self._count >= self._limit:
            self._count -= len(self._templates.pop(next(iter(self._templates))))
        head, rest = parts
        key = (message[:head], len(message) - rest)
        self._templates.setdefault(key, []).append(template)
        self._count += 1
