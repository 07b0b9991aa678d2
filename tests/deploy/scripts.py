"""Loads a file of scripts/, which is no package, as a module."""

from __future__ import annotations

import importlib.util
import re
import sys
from types import ModuleType

from tests.deploy.helm import ROOT


def dashboard_expressions() -> list[str]:
    """Return every expression of the dashboard, with values for what Grafana puts in."""
    panels = load_script("make_dashboard").PANELS
    found = [expression for panel in panels for expression in panel.lines.values()]
    return [re.sub(r"\$(job|model)", ".*", one).replace("$__rate_interval", "1m") for one in found]


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
