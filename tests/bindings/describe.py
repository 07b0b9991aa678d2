"""The classes of some TensorRT bindings as JSON: python describe.py MODULE CLASS...

Alone, because two versions of one extension module do not fit into a process.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any


def described(kind: Any) -> dict[str, str]:
    """Return the members of a class, with the text of those that are called."""
    names = [name for name in dir(kind) if not name.startswith("__")]
    return {
        name: getattr(kind, name).__doc__ or "" if callable(getattr(kind, name)) else ""
        for name in names
    }


if __name__ == "__main__":
    module = import_module(sys.argv[1])
    json.dump(
        {
            "version": str(module.__version__),
            "names": [name for name in dir(module) if not name.startswith("_")],
            "classes": {
                name: described(getattr(module, name))
                for name in dir(module)
                if isinstance(getattr(module, name), type)
            },
        },
        sys.stdout,
    )
