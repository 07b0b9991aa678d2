"""What can be fuzzed, by name: a function of bytes that raises when something is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.fuzz import codec, front, link, memory

TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "parsing": codec.parsing,
    "repeating": codec.repeating,
    "requests": front.requests,
    "blocks": memory.blocks,
    "ring": memory.ring,
    "lane": memory.lane,
    "arena": memory.arena,
    "link": link.link,
}
