"""Picking a share of what comes: by chance, or by a key that comes again."""

from __future__ import annotations

import math
from collections.abc import Callable

SHARE_BITS = 53
"""Of a random number: as many as a float holds."""
KEYS = 1 << 64
SPREAD = 0x9E3779B97F4A7C15
"""Times this, whole numbers in a row are spread evenly over 64 bits. Source: Knuth, 6.4."""
Draw = Callable[[int], int]
"""Returns a random number of so many bits."""


class Chance:
    """Picks a share of what comes: how many are passed over is drawn once for each that is picked.

    To draw for each costs more than all else that a request pays that is not picked.
    """

    def __init__(self, share: float, draw: Draw) -> None:
        """Pick a share, from 0 to 1; `draw` makes random numbers."""
        self._share = share
        self._draw = draw
        self.left = self._gap()
        """Until the next one that is picked, it included."""

    def __call__(self) -> bool:
        """Return whether the next one is picked. Threads side by side may pass over a few more."""
        self.left -= 1
        if self.left > 0:
            return False
        self.left = self._gap()
        return True

    def _gap(self) -> float:
        """Return after how many the next one is picked, 1 or more: a geometric distribution."""
        if self._share <= 0 or self._share >= 1:
            return 1 if self._share else math.inf
        drawn = (self._draw(SHARE_BITS) + 1) / 2**SHARE_BITS
        return 1 + int(math.log(drawn) / math.log1p(-self._share))


def picked(key: int, share: float) -> bool:
    """Tell whether a key of 64 bits is among those that are picked: always, or never.

    Args:
        key: such as that of a sequence.
        share: part of all keys.
    """
    return key * SPREAD % KEYS < share * (KEYS - 1)
