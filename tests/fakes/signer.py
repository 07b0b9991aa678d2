"""A signer of prediction tokens with keys, times and ids of a test's choice."""

from __future__ import annotations

import os
from collections.abc import Callable

from inferd_server.feedback.keys import TokenKeys
from inferd_server.feedback.tokens import TokenSigner

KEY = bytes(range(32))


def signer(
    *keys: bytes,
    wall: Callable[[], float] = lambda: 0.0,
    random: Callable[[int], bytes] = os.urandom,
) -> TokenSigner:
    """Return a signer with these keys, or with one that is always the same."""
    return TokenSigner(TokenKeys(keys or (KEY,), lasting=True), wall, random)
