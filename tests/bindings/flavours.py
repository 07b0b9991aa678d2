"""Real TensorRT bindings, of which only the Python part is here: the library is a few stubs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".tools"


@dataclass(frozen=True)
class Flavour:
    """Where bindings are, and how they are imported."""

    name: str
    folder: Path
    module: str
    stubs: bool
    """Whether the library that they are linked against is not here."""


FLAVOURS = (
    Flavour("TensorRT-RTX", TOOLS / "tensorrt_rtx", "tensorrt_rtx_bindings", stubs=False),
    Flavour("TensorRT 10", TOOLS / "tensorrt-10", "tensorrt_bindings", stubs=True),
    Flavour("TensorRT 11", TOOLS / "tensorrt-11", "tensorrt_bindings", stubs=True),
)


@dataclass(frozen=True)
class Bindings:
    """What some bindings have."""

    version: str
    names: frozenset[str]
    """Of the module."""
    classes: Mapping[str, Mapping[str, str]]
    """Members by class, with the text of those that are called."""


@cache
def bindings(flavour: Flavour) -> Bindings:
    """Import bindings in a process of their own, and return what they have.

    The test is skipped where they cannot be had.
    """
    if not (flavour.folder / flavour.module).is_dir():
        pytest.skip(f"{flavour.name} is not there: make tools")
    libraries = str(stubs(flavour)) if flavour.stubs else ""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("describe.py")), flavour.module],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(flavour.folder),
            "LD_LIBRARY_PATH": libraries,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: Any = json.loads(done.stdout)
    return Bindings(found["version"], frozenset(found["names"]), found["classes"])


def stubs(flavour: Flavour) -> Path:
    """Return a folder with libraries that have the names and nothing else, made once."""
    if not (shutil.which("gcc") and shutil.which("readelf") and shutil.which("nm")):
        pytest.skip("there is no gcc with binutils to make stubs of TensorRT's library with")
    folder = flavour.folder / "stubs"
    module = flavour.folder / flavour.module / "tensorrt.so"
    folder.mkdir(exist_ok=True)
    needed = re.findall(r"\(NEEDED\).*\[(libnv.*)\]", said("readelf", "-d", str(module)))
    symbols = said("nm", "-D", "--undefined-only", str(module))
    own = re.findall(r"\b((?:create|get|init)\w+)$", symbols, re.MULTILINE)
    code = "".join(f"void *{name}(void) {{ return 0; }}\n" for name in own)
    for name in needed:
        made = folder / f".{name}.{os.getpid()}"
        flags = ["-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(made), "-xc", "-"]
        subprocess.run(["gcc", *flags], input=code, text=True, check=True)
        made.replace(folder / name)
        code = ""
    return folder


def said(*command: str) -> str:
    """Return what a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
