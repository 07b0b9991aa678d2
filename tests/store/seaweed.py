"""A server that speaks S3, and checks credentials: for tests of stores in object storage."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from time import monotonic
from urllib.error import URLError

import pytest

PROGRAM = Path(__file__).parents[2] / ".tools/seaweedfs/bin/weed"
PATIENCE, TRIES = 60.0, 3
BUCKET = "models"
ACTIONS = {"writer": ["Admin", "Read", "Write", "List"], "reader": ["Read", "List"]}
"""By identity, whose secret is its name and "-secret"."""


class S3Server:
    """Where it listens, and how it is asked."""

    def __init__(self, port: int) -> None:
        self.port = port

    def environment(
        self, who: str = "writer", secret: str | None = None, port: int | None = None
    ) -> Mapping[str, str]:
        """Return the variables with which a client finds it, and shows who it is."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port or self.port}",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": who,
            "AWS_SECRET_ACCESS_KEY": f"{who}-secret" if secret is None else secret,
        }


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class PortTaken(Exception):
    """Somebody else took a port between its choice and the server's start."""


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Start one with an empty bucket; skips where it is not installed."""
    if not PROGRAM.exists():
        pytest.skip("no S3 server here: `make tools` fetches one")
    with ExitStack() as stack:
        for attempt in range(1, TRIES + 1):
            try:
                server = stack.enter_context(started(folder / f"{attempt}"))
            except PortTaken:
                if attempt == TRIES:
                    raise
            else:
                break
        yield server


@contextmanager
def started(folder: Path) -> Iterator[S3Server]:
    """Start one on ports that are free now.

    Raises:
        PortTaken: one is not any more.
    """
    names = (
        "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port",
        "filer.port.grpc", "s3.port", "s3.port.grpc",
    )  # fmt: skip
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    (folder / "data").mkdir(parents=True)
    identities = [
        {
            "name": name,
            "credentials": [{"accessKey": name, "secretKey": f"{name}-secret"}],
            "actions": actions,
        }
        for name, actions in ACTIONS.items()
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    flags = {
        **ports,
        "dir": folder / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "filer": "true",
        "s3": "true",
        "s3.config": folder / "s3.json",
        "s3.autoCreateBucket": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "master.volumeSizeLimitMB": 64,
        "master.telemetry": "false",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [PROGRAM, "server", *(f"-{name}={value}" for name, value in flags.items())],
            stdout=log,
            stderr=log,
            cwd=folder,
        )
        try:
            make_bucket(f"http://127.0.0.1:{ports['filer.port']}/buckets/{BUCKET}/", process)
            await_port(ports["s3.port"])
            yield S3Server(ports["s3.port"])
        finally:
            process.kill()
            process.wait()


def make_bucket(url: str, process: subprocess.Popen[bytes]) -> None:
    """Make a bucket, once the server takes that."""
    until = monotonic() + PATIENCE
    while True:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=5).close()
        except HTTPException as error:
            raise PortTaken from error
        except (URLError, OSError):
            pass  # not yet
        else:
            return
        if process.poll() is not None:
            raise PortTaken
        assert monotonic() < until
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.1)


def await_port(port: int) -> None:
    """Wait until somebody listens."""
    until = monotonic() + PATIENCE
    while True:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        assert monotonic() < until
