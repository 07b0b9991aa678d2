"""nginx and HAProxy as docs/deploy.md sets them up, on ports of this test."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.balancing.cluster import free_ports
from tests.server.lifecycle.process import PATIENCE

ROOT = Path(__file__).parents[2]


def snippet(language: str, addresses: Sequence[str], listen: str) -> str:
    """Return the configuration from the documentation, for these servers."""
    page = (ROOT / "docs" / "deploy.md").read_text()
    [text] = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    for index, address in enumerate(addresses):
        assert f"inferd-{index}:8001" in text
        text = text.replace(f"inferd-{index}:8001", address)
    return re.sub(r"(listen |bind :)8001", lambda found: found[1].rstrip(":") + listen, text)


@contextmanager
def nginx(folder: Path, addresses: Sequence[str]) -> Iterator[str]:
    """Run nginx before these servers; gives the address to call."""
    temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/errors;\n"
        "events {}\nhttp {\naccess_log off;\n"
        + "".join(f"{name}_temp_path {folder}/{name};\n" for name in temporary)
        + snippet("nginx", addresses, listen)
        + "}\n"
    )
    with listening(["nginx", "-e", f"{folder}/errors", "-c", str(config)], listen):
        yield listen


@contextmanager
def haproxy(folder: Path, addresses: Sequence[str]) -> Iterator[str]:
    """Run HAProxy before these servers; gives the address to call."""
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    config = folder / "haproxy.cfg"
    config.write_text(snippet("haproxy", addresses, listen))
    with listening(["haproxy", "-db", "-q", "-f", str(config)], listen):
        yield listen


@contextmanager
def listening(command: Sequence[str], address: str) -> Iterator[None]:
    """Run a program until the end of the block, once it takes connections there."""
    program = shutil.which(command[0], path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        pytest.skip(f"{command[0]} is not installed")
    process = subprocess.Popen([program, *command[1:]], stderr=subprocess.DEVNULL)
    try:
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(PATIENCE)
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)
