"""The pages of docs/, and what stands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs"
PAGES: Mapping[str, str] = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.md"))}


def section(page: str, title: str) -> str:
    """Return what stands below a title, up to the next one of its kind or above."""
    mark = re.search(rf"^(#+) {re.escape(title)}\n", PAGES[page], re.MULTILINE)
    assert mark is not None, f"{page}.md has no title {title!r}"
    rest = PAGES[page][mark.end() :]
    return re.split(rf"^#{{1,{len(mark[1])}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def tables(text: str) -> Iterator[tuple[Sequence[str], list[Sequence[str]]]]:
    """Yield the head and the rows of each table."""
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        head, _, *rows = (
            [cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()
        )
        yield head, rows


def quoted(text: str) -> list[str]:
    """Return what stands in backticks, code blocks left out."""
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", plain)


def blocks(page: str) -> list[str]:
    """Return the code blocks: those between fences, and those that are indented."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"(?:^ {4}.*\n(?:\n(?= {4}))?)+", rest, re.MULTILINE)
    return fenced + [re.sub(r"^ {4}", "", block, flags=re.MULTILINE) for block in indented]
