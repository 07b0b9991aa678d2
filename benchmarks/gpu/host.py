"""Where TensorRT is on this host, besides what is installed."""

from __future__ import annotations

import sys
from pathlib import Path

RTX = Path(__file__).parents[2] / ".tools/tensorrt_rtx"


def add_tools() -> None:
    """Let TensorRT-RTX be found where `make tools` puts it; one that is installed comes first."""
    if RTX.is_dir() and str(RTX) not in sys.path:
        sys.path.append(str(RTX))
