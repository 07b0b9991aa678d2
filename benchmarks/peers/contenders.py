"""The servers that are compared, and how each is started."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers import triton
from benchmarks.peers.models import Model

TOOLS = Path(__file__).parents[2] / ".tools/peers"
_ADAPTERS = Path(__file__).parent / "adapters"


@dataclass(frozen=True, slots=True)
class Place:
    """What a server is to serve, where, and a folder for its own files."""

    model: Model
    root: Path
    port: int
    folder: Path


@dataclass(frozen=True, slots=True)
class Contender:
    """A server; `command` also writes what the server needs into the place's folder."""

    name: str
    title: str
    command: Callable[[Place], Sequence[str]]
    streams: bool = True
    shared_memory: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)


def _inferd(*flags: str) -> Callable[[Place], Sequence[str]]:
    def command(place: Place) -> Sequence[str]:
        return [
            *(sys.executable, "-m", "inferd_server", "--model-repository", str(place.root)),
            *("--grpc-port", str(place.port), "--metrics-port", "0", *flags),
        ]

    return command


def _split(fronts: int) -> Callable[[Place], Sequence[str]]:
    return _inferd("--processes", "split", "--fronts", str(fronts))


def _triton(delay_us: int) -> Callable[[Place], Sequence[str]]:
    def command(place: Place) -> Sequence[str]:
        repository = triton.write(place.folder, place.model, place.root, delay_us)
        return triton.command(_site_packages("pytriton"), repository, place.port)

    return command


def _adapter(environment: str, script: str) -> Callable[[Place], Sequence[str]]:
    def command(place: Place) -> Sequence[str]:
        python = str(TOOLS / environment / "bin/python")
        arguments = [place.model.spec(place.root), str(place.port), str(place.folder)]
        return [python, str(_ADAPTERS / script), *arguments]

    return command


def _site_packages(environment: str) -> Path:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return TOOLS / environment / "lib" / version / "site-packages"


def _embedded_python() -> Mapping[str, str]:
    """Let Triton's stub find the environment's packages and the same libpython."""
    return {
        "PATH": f"{TOOLS / 'pytriton/bin'}{os.pathsep}{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR")),
    }


# The first is the one that the others are compared with.
_ALL = (
    Contender("inferd", "inferd", _inferd("--transport", "auto")),
    Contender("aio", "inferd, aio", _inferd("--transport", "aio")),
    Contender("threads", "inferd, threads", _inferd("--processes", "threads")),
    Contender("split-1", "inferd, split, 1 front", _split(1)),
    Contender("split-2", "inferd, split, 2 fronts", _split(2)),
    Contender(
        "replicas-2",
        "inferd, 2 replicas",
        _inferd("--processes", "replicas", "--replicas", "2"),
    ),
    Contender("triton-0", "Triton, 0 ms", _triton(0), environment=_embedded_python()),
    Contender("triton-1", "Triton, 1 ms", _triton(1000), environment=_embedded_python()),
    Contender(
        "pytriton",
        "PyTriton",
        _adapter("pytriton", "pytriton_server.py"),
        environment=_embedded_python(),
    ),
    Contender("kserve", "KServe", _adapter("kserve", "kserve_server.py"), False, False),
    Contender("mlserver", "MLServer", _adapter("mlserver", "mlserver_server.py"), False, False),
)
CONTENDERS: Mapping[str, Contender] = {contender.name: contender for contender in _ALL}
