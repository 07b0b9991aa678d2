"""The networks of this example, and the loaders that `inferd export` takes them by."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

CLASSES = 10


def teacher() -> nn.Sequential:
    """Return the article's network: [n, 3, 32, 32] -> [n, 10], 4,275,594 parameters."""
    return network((64, 128), 512, 0.5)


def student() -> nn.Sequential:
    """Return a network of the same kind, much narrower."""
    return network((16, 32), 64, 0.1)


def network(filters: tuple[int, int], units: int, dropout: float) -> nn.Sequential:
    """Return two convolutions with pooling, a layer of units with dropout, and ten classes."""
    first, second = filters
    return nn.Sequential(
        nn.Conv2d(3, first, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * 8 * 8, units),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(units, CLASSES),
    )


def parameters(module: nn.Module) -> int:
    """Return how many parameters a network has."""
    return sum(one.numel() for one in module.parameters())


def load(checkpoint: Path) -> nn.Module:
    """Return a whole module: pruning changes its layers, so that weights alone say too little."""
    module: nn.Module = torch.load(checkpoint, weights_only=False)
    return module
