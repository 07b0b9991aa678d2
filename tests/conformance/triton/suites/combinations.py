"""Datatypes of the models that are added and subtracted: input, sum and difference, by letter."""

from __future__ import annotations

import numpy as np

TYPES = {
    "u": np.uint8,
    "b": np.int8,
    "s": np.int16,
    "i": np.int32,
    "l": np.int64,
    "h": np.float16,
    "f": np.float32,
    "o": np.object_,
}
COMBINATIONS = (
    *("uuu", "bbb", "sss", "iii", "lll", "hhh", "fff", "hff", "bii", "ibb", "ibs", "fuu", "uff"),
    *("fuh", "iff", "fii", "ihs", "ooo", "oii", "oio", "ooi", "ioo", "iio", "ioi"),
)
QUICK = ("iii", "hff", "ooo")
"""Those that `make test` tries."""


def model_name(combination: str, *, batched: bool) -> str:
    """Return the name of the model of a combination."""
    return f"{combination}_{'batch' if batched else 'nobatch'}"
