"""Which nodes must not be quantised for a model to stay near its original."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from inferd_engines.conversion.errors import Differs


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found out."""

    error: float
    """Of the model without the excluded nodes."""
    excluded: Mapping[str, float]
    """The error when each of them alone is quantised, the largest first."""


def exclusions(
    nodes: Sequence[str], error_without: Callable[[Sequence[str]], float], most: float
) -> Scan:
    """Find few nodes to exclude, so that the error of the rest is at most `most`.

    Nothing is tried out node by node where all may be quantised. Otherwise each node is
    quantised alone, and the worst are excluded: how many is found by bisection.

    Args:
        nodes: that can be quantised.
        error_without: quantises all but some nodes, and returns how far the answers are then.
        most: that is allowed.

    Raises:
        Differs: the error is larger even where only the most harmless node is quantised.
    """
    error = error_without(())
    if error <= most:
        return Scan(error, {})
    alone = {node: error_without([one for one in nodes if one != node]) for node in nodes}
    order = sorted(nodes, key=lambda node: -alone[node])
    too_few, count, found = 0, len(order) - 1, 0.0
    found = error_without(order[:count])
    if found > most:
        raise Differs(
            f"whatever is quantised, an output is off by {found:.3g} of its size at least"
        )
    while count - too_few > 1:
        middle = (too_few + count) // 2
        tried = error_without(order[:middle])
        if tried <= most:
            count, found = middle, tried
        else:
            too_few = middle
    return Scan(found, {node: alone[node] for node in order[:count]})
