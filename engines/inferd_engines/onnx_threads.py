"""Which models are too small to share between threads.

Handing work to a second thread costs tens of microseconds, as much as a small model runs in
all; docs/onnxruntime.md has the measurement. Weights alone do not tell, since a small
convolution over a large image is much work, so that the size of the inputs counts too.
"""

from __future__ import annotations

import math

from inferd_engines.engine import Signature, Tensor

SMALL_FILES = 1024 * 1024
"""Bytes of a model and its weights below which it may be small."""

SMALL_ROW = 4096
"""Elements of an input's row up to which it is small."""


def has_small_rows(signature: Signature) -> bool:
    """Tell whether every input is known to be small, whatever the batch size."""
    return all(is_small_row(tensor) for tensor in signature.inputs)


def is_small_row(tensor: Tensor) -> bool:
    """Tell whether a row has at most SMALL_ROW elements; a free dimension may be any size."""
    sizes = [math.inf if size is None else size for size in tensor.shape[1:]]
    return math.prod(sizes) <= SMALL_ROW
