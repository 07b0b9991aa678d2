"""Make every model and its library's answers: python make.py FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import classical
import pytorch


def main(folder: Path) -> None:
    """Write models and answers, and a line for each model."""
    for name in (*classical.all_models(folder), *pytorch.all_models(folder)):
        print(name, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
