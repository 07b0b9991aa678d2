"""Checks what `make dist` built: the source builds the same wheel, and the wheel works.

python scripts/check_dist.py dist
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str]) -> int:
    """Check the wheel and the source distribution in the folder that the command line names."""
    (folder,) = map(Path, argv)
    (wheel,) = folder.glob("*.whl")
    (source,) = folder.glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as scratch:
        problems = differences(contents(wheel), contents(rebuilt(source, Path(scratch))))
        problems += started(wheel, Path(scratch) / "venv")
    for problem in problems:
        sys.stderr.write(problem + "\n")
    return 1 if problems else 0


def contents(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel, but for the list of them."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if "RECORD" not in name}


def differences(wheel: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """Return a line for each file that the source builds otherwise."""
    return [
        f"{name} is not what the source distribution builds"
        for name in sorted(wheel.keys() | other.keys())
        if wheel.get(name) != other.get(name)
    ]


def rebuilt(source: Path, scratch: Path) -> Path:
    """Build a wheel from the source distribution, and return its path."""
    with tarfile.open(source) as archive:
        archive.extractall(scratch / "source", filter="data")
    (root,) = (scratch / "source").iterdir()
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run([*command, "--directory", scratch / "wheel"], cwd=root, check=True)
    (built,) = (scratch / "wheel").iterdir()
    return built


def started(wheel: Path, environment: Path) -> list[str]:
    """Run the command out of an environment that holds the wheel, and this one's packages."""
    venv.create(environment, with_pip=False)
    packages = next(environment.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)  # noqa: S202 it was built here
    # Only what it needs is taken from here: of our own packages the wheel's come first.
    (packages / "needed.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    command = [environment / "bin/python", "-m", "inferd", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    version = wheel.name.split("-")[1]
    if done.returncode == 0 and done.stdout.strip() == f"inferd {version}":
        return []
    return [f"inferd --version ended with {done.returncode}: {done.stdout}{done.stderr}"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
