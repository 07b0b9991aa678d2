"""Few nodes are excluded, and those that hurt most."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from inferd_engines.conversion.errors import Differs
from inferd_engines.conversion.sensitivity import exclusions

HURTS = {"a": 0.01, "b": 0.5, "c": 0.02, "d": 0.2}


class Model:
    """Whose error is the sum of what each quantised node brings."""

    def __init__(self) -> None:
        self.tried = 0

    def error_without(self, excluded: Sequence[str]) -> float:
        self.tried += 1
        return sum(hurt for node, hurt in HURTS.items() if node not in excluded)


def test_nothing_is_excluded_and_no_node_is_tried_where_all_may_be_quantised() -> None:
    model = Model()
    scan = exclusions(list(HURTS), model.error_without, 1.0)
    assert scan.excluded == {}
    assert scan.error == pytest.approx(0.73)
    assert model.tried == 1


@pytest.mark.parametrize(
    ("most", "expected"), [(0.25, ["b"]), (0.05, ["b", "d"]), (0.015, ["b", "d", "c"])]
)
def test_the_worst_nodes_are_excluded_and_no_more(most: float, expected: list[str]) -> None:
    scan = exclusions(list(HURTS), Model().error_without, most)
    assert list(scan.excluded) == expected
    assert scan.excluded["b"] == pytest.approx(0.5)
    assert scan.error <= most


@pytest.mark.parametrize("nodes", [list(HURTS), ["b"]])
def test_a_model_that_no_choice_brings_near_enough_is_refused(nodes: list[str]) -> None:
    with pytest.raises(Differs, match="whatever is quantised"):
        exclusions(nodes, Model().error_without, 0.001)
