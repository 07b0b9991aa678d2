"""Shapes of the tensors whose dimensions are free, by datatypes."""

from __future__ import annotations

SHAPES = {
    "fff": (16,),
    "fii": (2, 8),
    "fll": (8, 4),
    "fil": (2, 8, 2),
    "ffi": (16,),
    "iii": (2, 8),
    "iif": (2, 8, 2),
    "ooo": (16,),
    "oii": (2, 8),
    "ooi": (8, 4),
    "oio": (2, 8, 2),
}


def variable_name(combination: str) -> str:
    """Return the name of the model whose dimensions are all free."""
    return f"{combination}_variable_{len(SHAPES[combination])}"
