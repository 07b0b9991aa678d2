"""Sets up the virtual environment of this project, for `make install`.

Two terminals may ask for it at once: the second waits for the first and finds its work done. An
install that was interrupted is begun anew, because nobody knows what is missing of it.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

OLDEST = (3, 11)
SOURCES = ("requirements/dev.txt", "pyproject.toml")

Run = Callable[[Sequence[str | Path], int], None]


def main(argv: Sequence[str]) -> int:
    """Install into the folder that the command line names, in the project of this file."""
    if sys.version_info < OLDEST:
        sys.stderr.write("Python {}.{} or later is needed\n".format(*OLDEST))
        return 1
    (folder,) = argv
    install(Path(__file__).parents[1], folder, run, sys.stderr.write)
    return 0


def install(root: Path, folder: str, run: Run, say: Callable[[str], object]) -> None:
    """Bring an environment up to date, unless it is or another process did so meanwhile.

    Args:
        root: of the project.
        folder: name of the environment, in `root`.
        run: runs a command that holds on to the file descriptor of the lock.
        say: told when another process has to be waited for.

    Raises:
        subprocess.CalledProcessError: a command failed.
        OSError: the folder cannot be written.
    """
    environment = root / folder
    done = environment / ".installed"
    with locked(root / f"{folder}.lock", say) as lock:
        if is_current(done, [root / source for source in SOURCES]):
            return
        if not done.exists():
            shutil.rmtree(environment, ignore_errors=True)
        done.unlink(missing_ok=True)
        for command in commands(root, environment):
            run(command, lock)
        done.touch()


def commands(root: Path, environment: Path) -> Iterator[Sequence[str | Path]]:
    """Yield what sets an environment up: itself, the locked packages, this project."""
    pip = [environment / "bin/python", "-m", "pip", "install", "--quiet"]
    pip.append("--disable-pip-version-check")
    yield [sys.executable, "-m", "venv", environment]
    yield [*pip, "--require-hashes", "-r", root / SOURCES[0]]
    yield [*pip, "--no-deps", "--no-build-isolation", "-e", root]


def is_current(done: Path, sources: Sequence[Path]) -> bool:
    """Tell whether an install ended after its sources were last changed."""
    if not done.exists():
        return False
    return all(source.stat().st_mtime_ns <= done.stat().st_mtime_ns for source in sources)


@contextmanager
def locked(path: Path, say: Callable[[str], object]) -> Iterator[int]:
    """Hold a lock that ends with the last process that has its file open; yields the descriptor."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another make that installs\n")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def run(command: Sequence[str | Path], lock: int) -> None:
    """Run a command; what it starts holds the lock even where this process is killed."""
    subprocess.run(command, check=True, pass_fds=[lock])


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
