"""A picture of size against accuracy, as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from examples.images.measuring import Measured, interval

WIDTH, PLOT, HEIGHT, MARGIN = 900, 520, 420, 50
"""Of the picture, of the plot in it (what its numbers mean stands right of it), and around it."""
LINE = 20
KILOBYTES = (100, 1000, 10_000)
STEP = 0.02


def picture(measured: Sequence[Measured]) -> str:
    """Return a plot: kilobytes along a logarithmic axis, accuracy and its interval upwards."""
    bounds = [interval(int(one.right.sum()), len(one.right)) for one in measured]
    logs = [math.log10(one.size / 1024) for one in measured]
    x = scale(min(logs), max(logs), MARGIN + LINE, PLOT - LINE)
    lowest = min(low for low, _ in bounds)
    y = scale(lowest, 1, HEIGHT - MARGIN, LINE)
    parts = [text(x(math.log10(each)) - LINE, HEIGHT - LINE, f"{each:,} KB") for each in KILOBYTES]
    ticks = (1 - STEP * step for step in range(int((1 - lowest) / STEP) + 1))
    parts += [text(LINE / 2, y(share), f"{share:.2f}") for share in ticks]
    for number, (one, (low, high), log) in enumerate(zip(measured, bounds, logs, strict=True), 1):
        mean = float(one.right.mean())
        parts += [
            f'<path d="M{x(log):.0f} {y(low):.0f}V{y(high):.0f}" stroke="silver"/>',
            f'<circle cx="{x(log):.0f}" cy="{y(mean):.0f}" r="3"/>',
            text(x(log) + (5 if number % 2 else -LINE), y(mean), str(number)),
            text(PLOT + LINE, LINE * (1 + number), f"{number}: {one.name}, {mean:.3f}"),
        ]
    axes = f'<path d="M{MARGIN} {LINE}V{HEIGHT - MARGIN}H{PLOT}" fill="none" stroke="black"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">'
        '<style>text{font:13px sans-serif}</style><rect width="100%" height="100%" fill="white"/>'
        f"{axes}{''.join(parts)}</svg>\n"
    )


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Return what puts values from low to high on pixels from start to end."""
    return lambda value: start + (value - low) / (high - low) * (end - start)


def text(x: float, y: float, words: str) -> str:
    """Return words at a place."""
    return f'<text x="{x:.0f}" y="{y + 4:.0f}">{words}</text>'
