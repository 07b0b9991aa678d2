"""Builds an image on a stand-in for its base, without network, and runs it as a node would.

Needs buildah, podman, runc and mmdebstrap, and root.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.helm import ROOT

PROGRAMS = ("buildah", "podman", "runc", "mmdebstrap")
# A folder that keeps the root file systems (mmdebstrap's tars) saves a minute for each.
BASES = "INFERD_TEST_BASES"
# Debian 12's, which is what the stand-in has.
PYTHON = "3.11"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BASE = "localhost/inferd-base:test"
IMAGE = "localhost/inferd:test"
VERSION = "0.0.test"


@dataclass(frozen=True)
class Kind:
    """What one of the two images is made of."""

    name: str
    """Of its Dockerfile, after the dot."""
    packages: str
    """Debian's, in the stand-in for its base."""
    locks: tuple[str, ...]
    """Files in requirements/."""


DEBIAN = "python3,python3-venv,ca-certificates,locales"
KINDS = {
    kind.name: kind
    for kind in (
        Kind("cpu", DEBIAN, ("build", "sbom", "server")),
        Kind("gpu", f"{DEBIAN},python3-dev,g++", ("build", "sbom", "gpu-build", "gpu")),
    )
}


def absent() -> list[str]:
    """Return the programs that are not here."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


def run(*command: str | Path, **environment: str) -> str:
    """Run a command to its end and return what it wrote, its errors only where it fails."""
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"{command[0]} exited with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done.stdout.strip()


@dataclass(frozen=True)
class Store:
    """Images and containers in a folder of the test's own."""

    folder: Path

    @property
    def _place(self) -> list[str]:
        graph, state = str(self.folder / "graph"), str(self.folder / "run")
        return ["--storage-driver", "overlay", "--root", graph, "--runroot", state]

    def buildah(self, *arguments: str | Path) -> str:
        """Run buildah; no container engine is needed for its steps."""
        return run("buildah", *self._place, *arguments, BUILDAH_ISOLATION="chroot")

    def podman(self, *arguments: str | Path) -> str:
        """Run podman, without systemd."""
        return run(*self._podman(), *arguments)

    def build(self, kind: Kind) -> None:
        """Build an image on its stand-in, from wheels alone, without network."""
        self._import_base(make_base(kind, self.folder))
        context = self.folder / "context"
        copy_sources(context)
        download_wheels(kind, context / "wheelhouse")
        given = {"BASE_IMAGE": BASE, "PIP_NO_INDEX": "1", "VERSION": VERSION}
        arguments = [f"--build-arg={name}={value}" for name, value in given.items()]
        # The docker format is the one that keeps the health check.
        options = ["--network=none", "--format=docker", f"--file={context}/Dockerfile.{kind.name}"]
        self.buildah("bud", *options, *arguments, "--tag", IMAGE, context)

    def logs(self, container: str) -> str:
        """Return what a container wrote, on either stream."""
        return run("sh", "-c", 'exec "$@" 2>&1', "sh", *self._podman(), "logs", container)

    def _podman(self) -> list[str]:
        engine = ["--cgroup-manager=cgroupfs", "--events-backend=file", "--runtime", "runc"]
        return ["podman", *engine, *self._place]

    def _import_base(self, base: Path) -> None:
        container = self.buildah("from", "scratch")
        self.buildah("add", "--quiet", container, base, "/")
        self.buildah("config", "--env", f"PATH={PATH}", container)
        self.buildah("commit", "--quiet", container, BASE)
        self.buildah("rm", container)

    @contextmanager
    def container(self, *options: str, command: tuple[str, ...] = ()) -> Iterator[str]:
        """Run the image as the chart's pod would run, and remove the container in the end."""
        name = self.podman("run", "--detach", *confinement(), *options, IMAGE, *command)
        try:
            yield name
        finally:
            self.podman("rm", "--force", "--time", "0", name)


def confinement() -> list[str]:
    """Return what the chart's security context amounts to, and what podman needs to run as root."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = ["--ulimit", f"nofile={files}:{files}", "--ulimit", "nproc=4096:4096"]
    return [
        *limits,
        "--pids-limit=0",
        "--network=host",
        "--no-healthcheck",
        "--read-only",
        "--read-only-tmpfs=false",
        "--tmpfs=/tmp:rw,size=64m,mode=1777",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
    ]


def make_base(kind: Kind, folder: Path) -> Path:
    """Return the root file system of a small Debian with Python, made unless it is there."""
    base = Path(os.environ.get(BASES, folder)) / f"{kind.name}.tar"
    if not base.exists():
        # As the slim images of Debian: without manuals and translations.
        slim = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")]
        packages = f"--include={kind.packages}"
        run("mmdebstrap", "--variant=minbase", *slim, packages, "bookworm", base)
    return base


def copy_sources(context: Path) -> None:
    """Copy what git tracks or would track, as a clone has it."""
    listed = run("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard")
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, context / name)


def download_wheels(kind: Kind, wheelhouse: Path) -> None:
    """Fetch everything that the build installs: wheels, and the source of pycuda."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    # The base's Python need not be this one, for which pip wants to look at no dependencies.
    target = ["--no-deps", "--only-binary", ":all:", "--python-version", PYTHON]
    for name in (f"{lock}.txt" for lock in kind.locks):
        # pip asks this Python whether a line is for an older patch of the base's.
        lines = (ROOT / "requirements" / name).read_text()
        every = wheelhouse.parent / name
        every.write_text(re.sub(r" ; python_full_version < '3\.11\.\d+'", "", lines))
        wanted = ["--no-binary", "pycuda", "--requirement", every]
        run(*pip, "--dest", wheelhouse, "--require-hashes", *target, *wanted)
