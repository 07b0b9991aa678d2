"""The bytes of requests: what the server makes of them is what the generated class makes."""

from __future__ import annotations

from tests.fuzz.operations import Choices
from tests.server.inference.alike import check_hit, walked, whole


def parsing(data: bytes) -> None:
    """Parse any bytes: read as the generated class reads them, or refused as it does."""
    assert walked(data) == whole(data)


def repeating(data: bytes) -> None:
    """Learn a message, and look up itself and one with up to seven bytes changed."""
    choices = Choices(data)
    edits = [(choices.number(0, 300), choices.byte()) for _ in range(choices.byte() & 7)]
    first = choices.rest()
    second = bytearray(first)
    for place, value in edits:
        if second:
            second[place % len(second)] = value
    check_hit(first, first)
    check_hit(first, bytes(second))
