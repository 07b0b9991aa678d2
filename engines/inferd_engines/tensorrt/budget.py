"""The check that a plan fits into the GPU's memory, before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
RESERVE = 64 * MIB
"""For what CUDA itself takes with modules and streams."""
GRAPH = 4 * MIB
"""Of one captured graph, an estimate."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes that a loaded plan takes on the device."""

    weights: int
    """About the size of the plan."""
    activations: int
    """Of all execution contexts; 0 before the plan was read."""
    arena: int
    """Inputs and outputs."""
    graphs: int
    """Captured ones, as a number."""

    @property
    def total(self) -> int:
        """All of it, with what CUDA takes."""
        return self.weights + self.activations + self.arena + self.graphs * GRAPH + RESERVE


def shortage(needs: Needs, free: int) -> str:
    """Say why a plan does not fit; "" if it does.

    Args:
        needs: of the plan.
        free: bytes that nobody holds on the device.
    """
    if needs.total <= free:
        return ""
    return (
        f"it needs about {mib(needs.total)} MiB (weights {mib(needs.weights)}, activations "
        f"{mib(needs.activations)}, inputs and outputs {mib(needs.arena)}, {needs.graphs} graphs), "
        f"and {mib(free)} MiB are free"
    )


def mib(count: int) -> int:
    """Return MiB, rounded up."""
    return -(-count // MIB)
