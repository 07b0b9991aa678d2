"""Loads a file of scripts/, which is no package, as a module."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from tests.deploy.helm import ROOT


def load_script(name: str) -> ModuleType:
    """Return the module of `scripts/NAME.py`."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses look for what their annotations name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
