"""Measures of an image that brightness cannot tell: where its light is, how its edges run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.float64]


def image_values(grey: Pixels) -> Mapping[str, npt.NDArray[np.float64]]:
    """Measure grey images.

    Moments tell of shifts and rotations of what is shown, edges of rotations of all of it, and
    detail of noise and blur.

    Args:
        grey: [n, height, width], finite.

    Returns:
        Shares between -1 and 1 of each image; NaN where an image shows nothing.
    """
    return {**moments(grey), **edges(grey)}


def moments(grey: Pixels) -> Mapping[str, npt.NDArray[np.float64]]:
    """Return centre and shape of the light above the darkest pixel.

    Args:
        grey: [n, height, width].
    """
    light = grey - grey.min(axis=(1, 2), keepdims=True)
    total = light.sum(axis=(1, 2))
    total = np.where(total > 0, total, np.nan)
    height, width = grey.shape[1:]
    y, x = np.linspace(-1, 1, height), np.linspace(-1, 1, width)
    columns, rows = light.sum(axis=1) / total[:, None], light.sum(axis=2) / total[:, None]
    centre_x, centre_y = columns @ x, rows @ y
    spread_x, spread_y = columns @ x**2 - centre_x**2, rows @ y**2 - centre_y**2
    both = np.einsum("nyx,y,x->n", light, y, x) / total - centre_x * centre_y
    size = known(spread_x + spread_y)
    return {
        "centre_x": centre_x,
        "centre_y": centre_y,
        "slant": 2 * both / size,
        "aspect": (spread_x - spread_y) / size,
    }


def edges(grey: Pixels) -> Mapping[str, npt.NDArray[np.float64]]:
    """Return which way the edges run, and how much of an image they are.

    Args:
        grey: [n, height, width].
    """
    down = np.diff(grey, axis=1)[:, :, :-1]
    right = np.diff(grey, axis=2)[:, :-1, :]
    across, along = (right**2).sum(axis=(1, 2)), (down**2).sum(axis=(1, 2))
    energy = known(across + along)
    variance = known(grey.var(axis=(1, 2)) * max(1, down[0].size if len(down) else 1))
    return {
        "edge_slant": 2 * (right * down).sum(axis=(1, 2)) / energy,
        "edge_aspect": (across - along) / energy,
        "detail": energy / (energy + 2 * variance),
    }


def known(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return values to divide by: NaN for those that are zero."""
    return np.where(values > 0, values, np.nan)
