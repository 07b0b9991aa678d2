"""Shapes of the tensors of no elements, by datatype, and the models that take them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

Shapes: TypeAlias = tuple[tuple[int, ...], ...]

DATATYPES = {"f": "FP32", "h": "FP16", "o": "BYTES", "?": "BOOL"}
SHAPES: dict[str, tuple[Shapes, ...]] = {
    "f": (
        *(((1,),), ((0,),), ((1,), (2,), (1,)), ((0,), (0,), (0,)), ((0,), (0,), (1,))),
        *(((0,), (1,), (0,)), ((1,), (0,), (0,)), ((1,), (0,), (1,))),
    ),
    "h": (
        *(((2, 2),), ((1, 0),), ((0, 1),), ((0, 0),), ((2, 2), (2, 2), (1, 1))),
        *(((0, 0), (0, 0), (0, 0)), ((0, 1), (0, 1), (2, 3)), ((1, 0), (1, 3), (0, 1))),
        *(((1, 1), (3, 0), (0, 0)), ((1, 1), (0, 6), (2, 2))),
    ),
    "o": (
        *(((2,),), ((0,),), ((2, 2), (2, 2), (1, 1)), ((0, 0), (0, 0), (0, 0))),
        *(((0, 1), (0, 1), (2, 3)), ((1, 0), (1, 3), (0, 1)), ((1, 1), (3, 0), (0, 0))),
        ((1, 1), (0, 6), (2, 2)),
    ),
    "?": (((10,),), ((0,),)),
}


def zero_name(letter: str, shapes: Shapes, *, batched: bool) -> str:
    """Return the name of the model that takes tensors of such ranks."""
    kind = DATATYPES[letter].lower()
    return f"zero_{kind}_{len(shapes)}x{len(shapes[0])}_{'batch' if batched else 'nobatch'}"


def zero_models() -> Iterator[tuple[str, str, int, int, bool]]:
    """Yield name, datatype, number of inputs, their rank and whether there are batches."""
    for letter, cases in SHAPES.items():
        for count, rank in sorted({(len(shapes), len(shapes[0])) for shapes in cases}):
            example = ((0,) * rank,) * count
            for batched in (True, False):
                name = zero_name(letter, example, batched=batched)
                yield name, DATATYPES[letter], count, rank, batched
