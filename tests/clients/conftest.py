"""The servers that the clients call, in every arrangement, and the clients, each built once."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from tests import models
from tests.conformance.process import ServerProcess
from tests.server.security.certificates import issued, root

from .programs import BUILDERS, Program

ARRANGEMENTS = ("inline", "threads", "split")
# One of them is enough where nothing has to be built; `make test-clients` has all.
EACH = [
    pytest.param(name, marks=[pytest.mark.clients] if name != "inline" else [])
    for name in ARRANGEMENTS
]
ROUNDS = 2_000_000
"""About a second of the model `slow`."""


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.repository(
        tmp_path_factory.mktemp("models"),
        {
            "simple": models.add_sub(),
            "slow": models.slow_add(ROUNDS),
            "watched": models.add_sub(),
            "large": models.identity("UINT8", dims=("batch", "bytes")),
        },
        {"slow": "{max_batch_size: 0, warm_up: []}"},
    )


def listening(server: ServerProcess) -> str:
    """Return where a server listens once it is ready."""
    port = server.wait_for("listening")["grpc_port"]
    server.wait_for("ready")
    return f"127.0.0.1:{port}"


def serving(repository: Path, arrangement: str, *flags: str) -> Iterator[str]:
    """Yield the address of a server, which must end well."""
    server = ServerProcess(
        repository, "--processes", arrangement, "--canary-interval-s", "0", *flags
    )
    try:
        yield listening(server)
    finally:
        code = server.stop()
    assert code == 0


@pytest.fixture(scope="session", params=EACH)
def address(request: pytest.FixtureRequest, repository: Path) -> Iterator[str]:
    yield from serving(repository, request.param)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate for this host, its key, and who signed it."""
    folder = tmp_path_factory.mktemp("tls")
    signer = trustme.CA()
    pair = issued(signer, "127.0.0.1")
    (folder / "tls.crt").write_bytes(pair.chain)
    (folder / "tls.key").write_bytes(pair.key)
    (folder / "ca.crt").write_bytes(root(signer))
    return folder


@pytest.fixture(scope="session", params=EACH)
def secured(
    request: pytest.FixtureRequest, repository: Path, authority: Path
) -> Iterator[tuple[str, Path]]:
    """The address of a server that speaks TLS, and the authority to trust."""
    flags = ("--tls-certificate", str(authority / "tls.crt"))
    flags += ("--tls-private-key", str(authority / "tls.key"))
    for address in serving(repository, request.param, *flags):
        yield address, authority / "ca.crt"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Program]:
    """Builds the client of a language, or skips the test that asks for one that cannot be."""
    built: dict[str, Program] = {}

    def build(language: str) -> Program:
        if language not in built:
            built[language] = BUILDERS[language](tmp_path_factory.mktemp(language))
        return built[language]

    return build


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
