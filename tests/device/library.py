"""The stand-in for the driver's library: compiled once, and loaded before pycuda looks for it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PYCUDA = ROOT / ".tools/pycuda"
SONAME = "libcuda.so.1"
FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-shared", "-pthread", "-Wall", "-Wextra", "-Werror")
ABSENT = 34
"""CUDA_ERROR_STUB_LIBRARY: what the functions return that only pycuda's module refers to."""


class Missing(Exception):
    """The stand-in cannot be had here; the text says what for."""


@cache
def folder() -> Path:
    """Return the folder that holds the stand-in as libcuda.so.1, compiling it if need be.

    Raises:
        Missing: there is no compiler, or no pycuda.
    """
    module = next(PYCUDA.glob("pycuda/_driver*.so"), None)
    if module is None:
        raise Missing("pycuda is not there: make tools")
    if not (shutil.which("gcc") and shutil.which("nm")):
        raise Missing("there is no gcc with binutils to compile the stand-in for CUDA with")
    sources = sorted(HERE.glob("*.[ch]"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in (*sources, module)))
    made = ROOT / ".tools/device" / digest.hexdigest()[:16]
    if not made.is_dir():
        build([path for path in sources if path.suffix == ".c"], module, made)
    return made


def build(sources: list[Path], module: Path, made: Path) -> None:
    """Compile into a folder, which appears as a whole."""
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=made.parent) as temporary:
        work = Path(temporary) / "made"
        work.mkdir()
        own = work / SONAME
        compile_to(own, sources)
        missing = symbols(module, "--undefined-only") - symbols(own, "--defined-only")
        rest = Path(temporary) / "rest.c"
        rest.write_text("".join(f"int {name}(void) {{ return {ABSENT}; }}\n" for name in missing))
        compile_to(own, [*sources, rest])
        try:
            work.rename(made)
        except OSError:
            # Another process was faster.
            if not made.is_dir():
                raise


def compile_to(target: Path, sources: list[Path]) -> None:
    """Compile and link."""
    names = [str(path) for path in sources]
    subprocess.run(["gcc", *FLAGS, f"-Wl,-soname,{SONAME}", "-o", str(target), *names], check=True)


def symbols(library: Path, which: str) -> set[str]:
    """Return the driver's functions that a library refers to, or has."""
    done = subprocess.run(
        ["nm", "-D", which, str(library)], check=True, capture_output=True, text=True
    )
    names = {line.split()[-1].partition("@")[0] for line in done.stdout.splitlines()}
    return {name for name in names if name.startswith("cu") and name[2:3].isupper()}


@cache
def load() -> Any:
    """Return the stand-in, loaded into this process; from then on `libcuda.so.1` is it.

    Raises:
        Missing: it cannot be had here, or the process has a real driver already.
    """
    found = folder()
    standin = ctypes.CDLL(str(found / SONAME), mode=ctypes.RTLD_GLOBAL)
    # Whoever comes first has the name.
    if not hasattr(ctypes.CDLL(SONAME), "standin_forget"):
        raise Missing("this process has the driver of a real GPU")
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    for name, result, *arguments in (
        ("calls", ctypes.c_long, ctypes.c_char_p),
        ("fail", None, ctypes.c_char_p, ctypes.c_long, ctypes.c_long, ctypes.c_int),
        ("broken", ctypes.c_int),
        ("event_flags", ctypes.c_uint),
        ("fail_wait", None, ctypes.c_int),
        ("break", None, ctypes.c_int, ctypes.c_int),
        ("pace", None, ctypes.c_int),
        ("limit", None, size),
        ("devices", None, ctypes.c_int, ctypes.c_int),
        ("violations", ctypes.c_long),
        ("said", ctypes.c_char_p),
        ("depth", ctypes.c_int),
        ("held", ctypes.c_long, ctypes.c_char_p),
        ("forget", None),
        ("view", pointer, ctypes.c_uint64, size),
        ("pinned", ctypes.c_int, pointer, size),
        ("keep", None, ctypes.c_int),
        ("launches", ctypes.c_long),
        ("capturing", ctypes.c_int, pointer),
    ):
        function = getattr(standin, f"standin_{name}")
        function.restype, function.argtypes = result, arguments
    standin.cuLaunchHostFunc.argtypes = [pointer, pointer, pointer]
    if str(PYCUDA) not in sys.path:
        sys.path.append(str(PYCUDA))
    return standin


def environment() -> dict[str, str]:
    """Return what a process needs to find the stand-in and pycuda.

    Raises:
        Missing: they cannot be had here.
    """
    libraries = [str(folder()), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    modules = [str(PYCUDA), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"LD_LIBRARY_PATH": ":".join(libraries), "PYTHONPATH": ":".join(modules)}
