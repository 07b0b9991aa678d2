"""Let pycuda be built where there is no CUDA toolkit and no driver.

    python scripts/configure_pycuda.py FOLDER && HOME=FOLDER pip install --no-build-isolation ...

Run it with the Python that has requirements/gpu-build.txt. pycuda takes its settings from
.aksetup-defaults.py in the home folder, the headers from NVIDIA's wheels, and links against a
stand-in for the driver's library, which only hosts with a GPU have.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import files
from pathlib import Path

HEADERS = "nvidia-cuda-runtime"
FUNCTION = re.compile(r"\b(cu[A-Z]\w*) *\(")


def header() -> Path:
    """Return cuda.h of the installed wheel.

    Raises:
        FileNotFoundError: the wheel does not have it.
    """
    for file in files(HEADERS) or []:
        if file.name == "cuda.h":
            return Path(str(file.locate()))
    raise FileNotFoundError(f"{HEADERS} holds no cuda.h")


def functions(declarations: str) -> list[str]:
    """Return the names of the driver's functions, as the linker knows them.

    Args:
        declarations: cuda.h after the preprocessor, which adds suffixes such as _v2.
    """
    return sorted(set(FUNCTION.findall(declarations)))


def link_library(names: list[str], folder: Path) -> None:
    """Write FOLDER/libcuda.so, whose functions do nothing: loading takes the driver's own."""
    source = folder / "libcuda.c"
    source.write_text("".join(f"int {name}(void) {{ return 1; }}\n" for name in names))
    flags = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(folder / "libcuda.so")]
    subprocess.run(["gcc", *flags, str(source)], check=True)


def settings(cuda: Path, library: Path) -> str:
    """Return what pycuda's setup.py reads."""
    return (
        f"CUDA_ROOT = {str(cuda)!r}\n"
        f"CUDADRV_LIB_DIR = [{str(library)!r}]\n"
        "CUDA_ENABLE_CURAND = False\n"
    )


def main(arguments: list[str]) -> None:
    """Write everything into the folder that is named."""
    folder = Path(arguments[0]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    found = header()
    done = subprocess.run(["gcc", "-E", str(found)], check=True, capture_output=True, text=True)
    link_library(functions(done.stdout), folder)
    (folder / ".aksetup-defaults.py").write_text(settings(found.parents[1], folder))


if __name__ == "__main__":
    main(sys.argv[1:])
