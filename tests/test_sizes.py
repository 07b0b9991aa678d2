"""Functions fit on a screen, and files are one thing each."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks", "client", "engines", "examples", "seal", "server", "store")
FILES = sorted(
    path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if "_pb2" not in path.name
)
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION = 600, 40


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function without its docstring."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    return lines - len((ast.get_docstring(function, clean=False) or "").splitlines())


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_file_and_no_function_is_longer_than_it_may_be(folder: str) -> None:
    files = [path for path in FILES if path.is_relative_to(ROOT / folder)]
    assert files
    for path in files:
        text = path.read_text()
        assert len(text.splitlines()) < MOST_LINES_OF_A_FILE, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert length(node) <= MOST_LINES_OF_A_FUNCTION, (path, node.name)
