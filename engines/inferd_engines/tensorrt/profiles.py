"""Optimisation profiles: for which shapes a plan is made, as pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from inferd_engines.engine import Signature, Tensor
from inferd_engines.tensorrt.errors import BuildFailed

Shape = tuple[int, ...]
BUCKETS = (1, 2, 4, 8, 16, 32)
"""Batch sizes when none are named."""


@dataclass(frozen=True, slots=True)
class Range:
    """The shapes of one input, batch included: at least, most often, at most."""

    least: Shape
    most_often: Shape
    most: Shape


@dataclass(frozen=True, slots=True)
class Profile:
    """One optimisation profile: a range for every input that has a free dimension."""

    rows: int
    """The bucket that it is for; 0 for a model without a batch dimension."""
    ranges: Mapping[str, Range] = field(default_factory=dict)


def profiles_for(
    signature: Signature, buckets: Sequence[int], asked: Mapping[str, Range], *, batched: bool
) -> tuple[Profile, ...]:
    """Return one profile for each bucket: a plan is fastest at the shape it was made for.

    Args:
        signature: of the model; a batch dimension is the first of every input, and free.
        buckets: batch sizes; requests in between are padded to the next one.
        asked: ranges without the batch dimension, of inputs with other free dimensions.
        batched: whether there is a batch dimension.

    Raises:
        BuildFailed: a free dimension has no range, or a range does not fit the input.
    """
    fixed = {tensor.name: _rest(tensor, asked, batched) for tensor in signature.inputs}
    if unknown := sorted(set(asked) - set(fixed)):
        raise BuildFailed(f"there is no input {unknown[0]!r}; there are {', '.join(fixed)}")
    if not batched:
        free = [tensor.name for tensor in signature.inputs if None in tensor.shape]
        ranges = {name: fixed[name] for name in free}
        return (Profile(0, ranges),) if ranges else ()
    return tuple(
        Profile(rows, {name: _with_rows(found, rows) for name, found in fixed.items()})
        for rows in sorted(set(buckets))
    )


def bucket_for(rows: int, buckets: Sequence[int]) -> int | None:
    """Return the smallest bucket that holds so many rows; None if none does."""
    return min((bucket for bucket in buckets if bucket >= rows), default=None)


def fits(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    """True if a shape is one of those that a signature allows."""
    return len(shape) == len(wanted) and all(
        size is None or size == given for given, size in zip(shape, wanted, strict=True)
    )


def _rest(tensor: Tensor, asked: Mapping[str, Range], batched: bool) -> Range:
    """Return an input's range without its batch dimension."""
    shape = tensor.shape[1:] if batched else tensor.shape
    found = asked.get(tensor.name)
    sizes = tuple(size for size in shape if size is not None)
    if found is None:
        if len(sizes) != len(shape):
            raise BuildFailed(
                f"input {tensor.name!r} has the shape {_text(tensor.shape)}: "
                "every free dimension but that of the batch needs a range"
            )
        return Range(sizes, sizes, sizes)
    for end in (found.least, found.most_often, found.most):
        if not fits(end, shape):
            raise BuildFailed(f"input {tensor.name!r} is {_text(shape)}, and the range has {end}")
    ends = zip(found.least, found.most_often, found.most, strict=True)
    if not all(0 < least <= often <= most for least, often, most in ends):
        raise BuildFailed(f"the range of input {tensor.name!r} does not rise: {found}")
    return found


def _with_rows(found: Range, rows: int) -> Range:
    return Range((rows, *found.least), (rows, *found.most_often), (rows, *found.most))


def _text(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
