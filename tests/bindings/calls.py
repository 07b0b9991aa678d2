"""Every use of TensorRT in our sources: which class, which member, and how many arguments."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = (
    *sorted((ROOT / "engines/inferd_engines/tensorrt").glob("*.py")),
    ROOT / "benchmarks/gpu/bare.py",
)
MODULES = {"trt", "self._trt", "loaded.trt", "library.module", "self.module", "self.library.module"}
"""How the module is called where it is used."""
RECEIVERS = {
    "builder": "Builder",
    "cache": "ITimingCache",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "error": "ParserError",
    "made": "IOptimizationProfile",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "runtime": "Runtime",
    "self._begin()": "Builder",
    "self._cache": "IRuntimeCache",
    "self._context": "IExecutionContext",
    "self._contexts[form.profile]": "IExecutionContext",
    "self._engine": "ICudaEngine",
    "self._loaded.engine": "ICudaEngine",
    "self._runtime": "Runtime",
    "one": "ITensor",
}
"""The class of what stands before the dot."""
OTHERS = {
    ("config", "create_runtime_cache"): "IRuntimeConfig",
    ("config", "dynamic_shapes_kernel_specialization_strategy"): "IRuntimeConfig",
    ("config", "set_execution_context_allocation_strategy"): "IRuntimeConfig",
    ("config", "set_runtime_cache"): "IRuntimeConfig",
}
"""Where one name stands for objects of two classes."""
COMMON = {"name", "shape", "dtype", "nbytes", "flags", "node", "engine", "update", "value"}
"""Members that objects of ours, numpy's and Python's have, too."""


@dataclass(frozen=True)
class Use:
    """One use of a member."""

    where: str
    receiver: str
    member: str
    arguments: int | None
    """Of a call, by position; None for an attribute."""
    named: bool
    """Whether there are arguments by name, which change from version to version."""

    @property
    def kind(self) -> str | None:
        """The class of TensorRT's; None if nobody has said."""
        return OTHERS.get((self.receiver, self.member)) or RECEIVERS.get(self.receiver)


def uses(members: set[str]) -> list[Use]:
    """Return the uses of members of these names, but for those that everything has."""
    return [use for path in SOURCES for use in _uses(path) if use.member in members - COMMON]


def names() -> set[str]:
    """Return the names of the module that are used."""
    found = {use.member for path in SOURCES for use in _uses(path) if use.receiver in MODULES}
    return found - {"__version__"}


def _uses(path: Path) -> Iterator[Use]:
    tree = ast.parse(path.read_text())
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        call = called.get(id(node))
        yield Use(
            f"{path.name}:{node.lineno}",
            ast.unparse(node.value),
            node.attr,
            None if call is None else len(call.args),
            bool(call and call.keywords),
        )
