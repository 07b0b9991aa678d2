"""The picture of `inferd drift`: each feature's distribution, beside that of the reference."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, COLUMNS = 300, 150, 3
TOP = 34
"""Of a version's part, for its title."""
MOST_BARS = 20
STYLE = (
    "text{font:12px sans-serif;fill:#222}.title{font-weight:bold;font-size:14px}"
    ".alarm{fill:#b00020;font-weight:bold}.reference{fill:#9aa5b1}.window{fill:#1f6feb}"
    ".drifted{fill:#b00020}"
)


def picture(found: Sequence[Any]) -> str:
    """Return an SVG with a part for each version.

    Args:
        found: as `inferd drift --json` prints it.
    """
    parts, height = [], 0
    for one in found:
        lines = -(-len(one["features"]) // COLUMNS)
        parts.append(f'<g transform="translate(0,{height})">{_version(one)}</g>')
        height += TOP + lines * HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{COLUMNS * WIDTH}" '
        f'height="{height}" viewBox="0 0 {COLUMNS * WIDTH} {height}">'
        f'<style>{STYLE}</style><rect width="100%" height="100%" fill="white"/>'
        f"{''.join(parts)}</svg>\n"
    )


def _version(one: Any) -> str:
    title = f"{one['model']} {one['version']}: grey the reference, coloured the last window"
    if not one["features"]:
        title = f"{one['model']} {one['version']}: no window was judged yet"
    features = "".join(
        f'<g transform="translate({WIDTH * (i % COLUMNS)},{TOP + HEIGHT * (i // COLUMNS)})">'
        f"{_feature(feature)}</g>"
        for i, feature in enumerate(one["features"])
    )
    return f'<text class="title" x="10" y="22">{escape(title)}</text>{features}'


def _feature(feature: Any) -> str:
    drifted = " alarm" if feature["alarm"] else ""
    name = escape(str(feature["feature"]))
    told = "" if feature["labels"] else f"KS {feature['ks']:.2f}, "
    told += f"PSI {feature['psi']:.2f}"
    reference, window = shares(feature["reference"]), shares(feature["window"])
    largest = max(*reference, *window, 1e-9)
    width = (WIDTH - 20) / len(reference)
    bars = []
    for place, (before, now) in enumerate(zip(reference, window, strict=True)):
        kinds = ("reference", "drifted" if feature["alarm"] else "window")
        for half, (share, kind) in enumerate(zip((before, now), kinds, strict=True)):
            tall = share / largest * (HEIGHT - 60)
            x, y = 10 + width * (place + half * 0.45), HEIGHT - 14 - tall
            bars.append(
                f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width * 0.42:.1f}" '
                f'height="{tall:.1f}"/>'
            )
    return (
        f'<text class="name{drifted}" x="10" y="14">{name}</text>'
        f'<text x="10" y="30">{told}</text>{"".join(bars)}'
    )


def shares(counts: Sequence[int]) -> list[float]:
    """Return the shares of at most MOST_BARS groups of neighbouring bins."""
    step = -(-len(counts) // MOST_BARS)
    groups = [sum(counts[i : i + step]) for i in range(0, len(counts), step)]
    return [group / max(1, sum(counts)) for group in groups]
