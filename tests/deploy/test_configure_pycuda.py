"""scripts/configure_pycuda.py, on a header of three functions."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.deploy.scripts import load_script

HEADER = """
#define cuMemAlloc cuMemAlloc_v2
typedef struct CUctx_st *CUcontext;
typedef int (*cuCallback)(void);
int cuInit(unsigned int flags);
int cuMemAlloc(void **pointer, unsigned long bytes);
int cuCtxGetCurrent (CUcontext *current);
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("configure_pycuda")


@pytest.fixture
def cuda(tmp_path: Path) -> Path:
    """A folder as NVIDIA's wheel has it."""
    (tmp_path / "cu13/include").mkdir(parents=True)
    (tmp_path / "cu13/include/cuda.h").write_text(HEADER)
    return tmp_path / "cu13"


def test_the_stand_in_has_every_function_under_the_name_that_is_linked(
    script: ModuleType, cuda: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    monkeypatch.setattr(script, "header", lambda: cuda / "include/cuda.h")
    home = tmp_path / "home"
    script.main([str(home)])
    names = ["cuInit", "cuMemAlloc_v2", "cuCtxGetCurrent", "cuMemAlloc"]
    assert exported(home / "libcuda.so", names) == [True, True, True, False]
    # What is linked against it looks for the driver's library by this name.
    assert b"\0libcuda.so.1\0" in (home / "libcuda.so").read_bytes()


def exported(library: Path, names: list[str]) -> list[bool]:
    """Look functions up in a process of its own: here it would pass for the driver's library."""
    program = (
        "import ctypes, json, sys; found = ctypes.CDLL(sys.argv[1]); "
        "print(json.dumps([hasattr(found, name) for name in sys.argv[2:]]))"
    )
    command = [sys.executable, "-c", program, library, *names]
    found: list[bool] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def test_pycuda_reads_where_headers_and_library_are(script: ModuleType, tmp_path: Path) -> None:
    read: dict[str, object] = {}
    exec(script.settings(tmp_path / "cu13", tmp_path / "home"), read)
    assert read["CUDA_ROOT"] == str(tmp_path / "cu13")
    assert read["CUDADRV_LIB_DIR"] == [str(tmp_path / "home")]
    assert read["CUDA_ENABLE_CURAND"] is False


def test_without_the_wheel_of_headers_it_is_named(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "files", lambda _: [])
    with pytest.raises(FileNotFoundError, match=r"nvidia-cuda-runtime holds no cuda\.h"):
        script.header()
