"""A share of what comes is picked, evenly; a key always or never."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from inferd_server.monitoring.chance import Chance, picked


@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_the_share_is_that_of_all_and_that_of_the_keys(share: float) -> None:
    chance = Chance(share, random.Random(1).getrandbits)
    found = [chance() for _ in range(20_000)]
    assert sum(found) == pytest.approx(20_000 * share, rel=0.2)
    for keys in (range(1, 20_001), range(7, 2**64, 2**64 // 20_000)):
        found = [picked(key, share) for key in keys]
        assert sum(found) == pytest.approx(len(found) * share, rel=0.1)
        assert found == [picked(key, share) for key in keys]


def test_of_those_passed_over_in_a_row_are_as_many_as_chance_says() -> None:
    chance = Chance(0.25, random.Random(2).getrandbits)
    found = [chance() for _ in range(40_000)]
    in_a_row = sum(a and b for a, b in pairwise(found))
    assert in_a_row == pytest.approx(40_000 * 0.25**2, rel=0.1)


def test_nothing_of_none_is_picked() -> None:
    chance = Chance(0.0, random.Random(3).getrandbits)
    assert not any(chance() for _ in range(1000))
    assert not any(picked(key, 0.0) for key in range(1, 1000))
