"""scripts/install.py: one install at a time, and none that was interrupted is taken for whole."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.deploy.helm import ROOT
from tests.deploy.scripts import load_script

script = load_script("install")
PATIENCE = 60


class Pip:
    """Stands for venv and pip: makes the folder, keeps what it was asked, may be held."""

    def __init__(self) -> None:
        self.commands: list[Sequence[str | Path]] = []
        self.begun, self.go = threading.Event(), threading.Event()
        self.fails_at = ""

    def __call__(self, command: Sequence[str | Path], lock: int) -> None:
        self.commands.append(command)
        self.begun.set()
        assert self.go.wait(PATIENCE)
        if "venv" in command:
            Path(command[-1]).mkdir(exist_ok=True)
        if self.fails_at and self.fails_at in command:
            raise subprocess.CalledProcessError(1, "pip")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/dev.txt").touch()
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


@pytest.fixture
def pip() -> Pip:
    return Pip()


def install(root: Path, pip: Pip, say: Callable[[str], object] = lambda _: None) -> None:
    script.install(root, ".venv", pip, say)


def test_a_second_install_waits_for_the_first_and_does_nothing(root: Path, pip: Pip) -> None:
    waits = threading.Event()
    first = threading.Thread(target=install, args=(root, pip))
    second = threading.Thread(target=install, args=(root, pip, lambda _: waits.set()))
    first.start()
    assert pip.begun.wait(PATIENCE)
    second.start()
    assert waits.wait(PATIENCE)
    assert len(pip.commands) == 1
    pip.go.set()
    first.join(PATIENCE)
    second.join(PATIENCE)
    assert len(pip.commands) == 3
    assert (root / ".venv/.installed").exists()


@pytest.mark.parametrize("step", ["-r", "-e"])
def test_an_install_that_was_interrupted_is_begun_anew(root: Path, pip: Pip, step: str) -> None:
    pip.go.set()
    pip.fails_at = step
    with pytest.raises(subprocess.CalledProcessError):
        install(root, pip)
    (root / ".venv/half").touch()
    pip.fails_at, done = "", len(pip.commands)
    install(root, pip)
    assert not (root / ".venv/half").exists()
    assert len(pip.commands) == done + 3


def test_an_update_that_was_interrupted_is_begun_anew(root: Path, pip: Pip) -> None:
    pip.go.set()
    install(root, pip)
    newer = (root / ".venv/.installed").stat().st_mtime_ns + 1_000_000_000
    os.utime(root / "pyproject.toml", ns=(newer, newer))
    pip.fails_at = "-r"
    with pytest.raises(subprocess.CalledProcessError):
        install(root, pip)
    assert not (root / ".venv/.installed").exists()


def test_the_lock_of_a_killed_install_holds_while_what_it_started_runs(root: Path) -> None:
    code = (
        "import importlib.util as u, sys; s = u.spec_from_file_location('install', sys.argv[1]);"
        "m = u.module_from_spec(s); s.loader.exec_module(m); from pathlib import Path;"
        "lock = m.locked(Path(sys.argv[2]), print); fd = lock.__enter__();"
        "m.run(['sh', '-c', 'echo held; read line'], fd)"
    )
    lock = root / ".venv.lock"
    process = subprocess.Popen(
        [sys.executable, "-c", code, ROOT / "scripts/install.py", lock],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)

        def let_go(_: str) -> None:
            process.stdin.write("\n")
            process.stdin.flush()

        said: list[str] = []
        with script.locked(lock, lambda text: (said.append(text), let_go(text))):
            assert said


FAKE_PIP = """
import os, sys
from pathlib import Path
root = Path(os.environ["FIFOS"])
with (root / "log").open("a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
if "-r" in sys.argv:
    (root / "begun").open("w").close()
    (root / "go").open("r").close()
"""


@contextmanager
def make(folder: Path, fifos: Path) -> Iterator[subprocess.Popen[str]]:
    """Run `make install` in a copy of the project, with a pip that waits; killed at the end."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    process = subprocess.Popen(
        ["make", "install", f"PYTHON={sys.executable}"],
        cwd=folder,
        env={**plain, "PYTHONPATH": str(folder / "fakes"), "FIFOS": str(fifos)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_two_makes_in_a_fresh_clone_install_once_and_both_succeed(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (root / "scripts").mkdir()
    for name in ("Makefile", "scripts/install.py"):
        shutil.copy(ROOT / name, root / name)
    (root / "fakes/pip").mkdir(parents=True)
    (root / "fakes/pip/__init__.py").touch()
    (root / "fakes/pip/__main__.py").write_text(FAKE_PIP)
    fifos = tmp_path_factory.mktemp("fifos")
    os.mkfifo(fifos / "begun")
    os.mkfifo(fifos / "go")
    with make(root, fifos) as first:
        (fifos / "begun").open("r").close()
        with make(root, fifos) as second:
            assert second.stderr is not None
            assert "waiting" in second.stderr.readline()
            (fifos / "go").open("w").close()
            assert [first.wait(PATIENCE), second.wait(PATIENCE)] == [0, 0]
    log = (fifos / "log").read_text().splitlines()
    assert len([line for line in log if " -r " in line]) == 1
