"""nginx, HAProxy and Envoy as docs/balancing.md sets them up, on ports of this test."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tests.balancing.cluster import free_ports
from tests.prometheus import until
from tests.server.lifecycle.process import PATIENCE

ROOT = Path(__file__).parents[2]
NAME = "inferd-headless.test"
PROGRAMS = f"/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:{ROOT}/.tools/envoy/envoy/_bin"


def snippet(language: str, addresses: Sequence[str], listen: str) -> str:
    """Return the configuration from the documentation, for these servers."""
    page = (ROOT / "docs" / "balancing.md").read_text()
    [text] = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    for index, address in enumerate(addresses):
        host, port = address.split(":")
        text, count = re.subn(
            rf"inferd-{index}(:|, port_value: )8001",
            lambda found, host=host, port=port: f"{host}{found[1]}{port}",
            text,
        )
        assert count == 1
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
def envoy(folder: Path, addresses: Sequence[str]) -> Iterator[str]:
    """Run Envoy before these servers; gives the address to call."""
    port = free_ports(1)[0]
    config = folder / "envoy.yaml"
    text = snippet("yaml", addresses, "")
    config.write_text(text.replace("0.0.0.0, port_value: 8001", f"127.0.0.1, port_value: {port}"))
    command = ["envoy", "--config-path", str(config), "--concurrency", "1"]
    alone = ["--disable-hot-restart", "--log-level", "error"]
    with listening([*command, *alone], f"127.0.0.1:{port}"):
        yield f"127.0.0.1:{port}"


@dataclass(frozen=True)
class Names:
    """A name server that knows one name, as a headless Service has one."""

    port: int
    _process: subprocess.Popen[bytes]
    _file: Path

    def tell(self, addresses: Sequence[str]) -> None:
        """Have the name stand for these addresses from now on."""
        self._file.write_text(hosts(addresses))
        self._process.send_signal(signal.SIGHUP)


@contextmanager
def names(folder: Path, addresses: Sequence[str]) -> Iterator[Names]:
    """Run a name server on loopback."""
    port, file, config = free_ports(1)[0], folder / "hosts", folder / "dnsmasq.conf"
    file.write_text(hosts(addresses))
    config.touch()
    where = [f"--port={port}", "--listen-address=127.0.0.1", "--bind-interfaces"]
    known = ["--no-resolv", "--no-hosts", f"--addn-hosts={file}", "--local-ttl=1", "--user=root"]
    command = ["dnsmasq", "--keep-in-foreground", f"--conf-file={config}", "--log-facility=-"]
    with program([*command, *where, *known]) as process:
        until(lambda: accepts(port), lambda: "the name server takes no connections")
        yield Names(port, process, file)


def hosts(addresses: Sequence[str]) -> str:
    """Return the lines of a hosts file."""
    return "".join(f"{address} {NAME}\n" for address in addresses)


def accepts(port: int) -> bool:
    """Tell whether anybody takes connections there."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@contextmanager
def listening(command: Sequence[str], address: str) -> Iterator[None]:
    """Run a program until the end of the block, once it takes connections there."""
    with program(command):
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(PATIENCE)
        yield


@contextmanager
def program(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the end of the block."""
    found = shutil.which(command[0], path=PROGRAMS)
    if found is None:
        pytest.skip(f"{command[0]} is not installed")
    process = subprocess.Popen([found, *command[1:]], stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)
