"""Training, distillation and pruning in PyTorch, on the processor and with fixed seeds."""

from __future__ import annotations

import itertools

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from examples.images.data import PADDED
from examples.images.networks import CLASSES

BATCH = 64
RATE = 2e-3
SEED = 0
SHIFTS = tuple(itertools.product((-1, 0, 1), repeat=2))
"""Pixels that images are moved by, down and right."""
TEMPERATURE = 2.0
"""Of the distilled probabilities. Source: G. Hinton, O. Vinyals, J. Dean, 1503.02531."""
HARD = 0.5
"""Weight of the labels beside what the teacher says."""


def train(
    module: nn.Module,
    images: Tensor,
    labels: Tensor,
    epochs: int,
    soft: Tensor | None = None,
    rate: float = RATE,
) -> None:
    """Train a module in place: Adam, a learning rate that falls to zero, cross-entropy.

    Every batch is moved by one of SHIFTS.

    Args:
        module: [n, 3, 32, 32] -> [n, 10].
        images: FP32 [n, 3, 32, 32].
        labels: int64 [n].
        epochs: how often each image is seen.
        soft: a teacher's outputs FP32 [shifts, n, 10], to be distilled; None: there is no teacher.
        rate: the highest learning rate.
    """
    torch.manual_seed(SEED)
    optimizer = torch.optim.Adam(module.parameters())
    steps = -(-len(images) // BATCH) * epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    module.train()
    with tqdm(total=steps, unit="step", leave=False, disable=None) as bar:
        for _ in range(epochs):
            for rows in torch.randperm(len(images)).split(BATCH):
                optimizer.zero_grad()
                which = int(torch.randint(len(SHIFTS), ()))
                found = module(shifted(images[rows], SHIFTS[which]))
                loss = functional.cross_entropy(found, labels[rows])
                if soft is not None:
                    loss = HARD * loss + (1 - HARD) * distilled(found, soft[which, rows])
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()
    module.eval()


def distilled(found: Tensor, soft: Tensor) -> Tensor:
    """Return how far softened outputs [n, 10] are from a teacher's [n, 10]."""
    wanted = functional.log_softmax(soft / TEMPERATURE, dim=1)
    given = functional.log_softmax(found / TEMPERATURE, dim=1)
    loss = functional.kl_div(given, wanted, reduction="batchmean", log_target=True)
    return loss * TEMPERATURE**2


def shifted(images: Tensor, shift: tuple[int, ...]) -> Tensor:
    """Return images [n, 3, 32, 32] moved down and right: nothing but dark edge leaves them."""
    return images.roll(shift, (2, 3))


def outputs(module: nn.Module, images: Tensor) -> Tensor:
    """Return what a module says of images, moved by each of SHIFTS: FP32 [shifts, n, 10]."""
    with torch.no_grad():
        return torch.stack(
            [
                torch.cat([module(shifted(batch, shift)) for batch in images.split(BATCH)])
                for shift in SHIFTS
            ]
        )


def prune(module: nn.Module, ratio: float) -> None:
    """Take out, in place, this share of the channels of every layer but the last: the weakest.

    Source: G. Fang et al., DepGraph, 2301.12900, by its package torch-pruning.
    """
    (last,) = (one for one in module.modules() if getattr(one, "out_features", 0) == CLASSES)
    torch_pruning.pruner.MagnitudePruner(
        module,
        torch.zeros(1, 3, PADDED, PADDED),
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=[last],
    ).step()
