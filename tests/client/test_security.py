"""Clients speak TLS, show certificates and tokens, and keep tokens from strangers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme
from inferd.oip.v2 import inference_pb2 as pb
from inferd_client import AsyncClient, Client, Tls
from inferd_client.cli import main
from inferd_client.errors import Unavailable
from inferd_client.security import authorization, is_local

from tests.fakes.oip_server import OipServer

INPUT = {"image": np.zeros((1, 4), np.float32)}
METADATA = pb.ModelMetadataResponse(
    name="digits", inputs=[{"name": "image", "datatype": "FP32", "shape": [-1, 4]}]
)


class Papers:
    """A server's and a client's certificates, in memory and in files."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.ca = authority.cert_pem.bytes()
        self.server = authority.issue_cert("server.test")
        shown = authority.issue_cert("client.test")
        self.chain = b"".join(blob.bytes() for blob in shown.cert_chain_pems)
        self.key = shown.private_key_pem.bytes()
        self.files = {"ca": self.ca, "certificate": self.chain, "private-key": self.key}
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        self.flags = [f"--tls-{name}={folder / name}" for name in self.files]
        self.flags.append("--tls-server-name=server.test")

    @property
    def tls(self) -> Tls:
        return Tls(self.ca, self.chain, self.key, "server.test")

    @property
    def credentials(self) -> grpc.ServerCredentials:
        chain = b"".join(blob.bytes() for blob in self.server.cert_chain_pems)
        pair = self.server.private_key_pem.bytes(), chain
        return grpc.ssl_server_credentials([pair], self.ca, require_client_auth=True)


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


@pytest.fixture
def secure(papers: Papers) -> Iterator[OipServer]:
    """A server that asks for certificates."""
    with OipServer(papers.credentials) as server:
        server.answers["ModelMetadata"] = METADATA
        yield server


def test_a_client_with_certificate_and_token_is_answered(secure: OipServer, papers: Papers) -> None:
    with Client(secure.address, tls=papers.tls, token="secret") as client:
        assert client.infer("digits", inputs=INPUT)["image"].shape == (1, 4)
    assert secure.metadata["authorization"] == "Bearer secret"


def test_so_is_one_of_asyncio(secure: OipServer, papers: Papers) -> None:
    async def call() -> None:
        async with AsyncClient(secure.address, tls=papers.tls, token="secret") as client:
            await client.infer("digits", inputs=INPUT)

    asyncio.run(call())
    assert secure.metadata["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("missing", "cure"),
    [
        ("tls", r"pass tls=Tls\(\) \(--tls\)"),
        ("ca", r"Tls\(ca=...\) \(--tls-ca FILE\)"),
        ("certificate", r"Tls\(certificate=..., private_key=...\) \(--tls-certificate"),
        ("name", r"Tls\(server_name=...\) \(--tls-server-name NAME\)"),
    ],
)
def test_without_its_papers_it_is_not_and_says_what_to_pass(
    secure: OipServer, papers: Papers, missing: str, cure: str
) -> None:
    tls = {
        "tls": None,
        "ca": Tls(server_name="server.test"),
        "certificate": Tls(papers.ca, server_name="server.test"),
        "name": Tls(papers.ca, papers.chain, papers.key),
    }[missing]
    with Client(secure.address, tls=tls) as client, pytest.raises(Unavailable, match=cure):
        client.infer("digits", inputs=INPUT)


def test_tls_to_a_server_without_it_says_to_leave_it_out(server: OipServer, papers: Papers) -> None:
    said = "the server speaks no TLS: leave tls out"
    with Client(server.address, tls=papers.tls) as client, pytest.raises(Unavailable, match=said):
        client.infer("digits", inputs=INPUT)


@pytest.mark.parametrize("command", ["infer", "bench", "bench stream"])
def test_commands_take_it_all_as_flags(
    secure: OipServer,
    papers: Papers,
    command: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "token").write_text("secret\n")
    name, *kind = command.split()
    more = {
        "infer": ["--input", "image=zeros"],
        "bench": ["--requests", "3", "--concurrency", "1", *(f"--{word}" for word in kind)],
    }[name]
    shown = [*papers.flags, "--token-file", str(tmp_path / "token")]
    assert main([name, "digits", "--url", secure.address, *shown, *more]) == 0
    assert secure.metadata["authorization"] == "Bearer secret"
    if name == "bench":
        assert "neither TLS nor tokens" in capsys.readouterr().out


def test_a_token_may_stand_in_the_environment(
    server: OipServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["ModelMetadata"] = METADATA
    monkeypatch.setenv("INFERD_TOKEN", "from the environment".replace(" ", "-"))
    assert main(["infer", "digits", "--url", server.address, "--input", "image=zeros"]) == 0
    assert server.metadata["authorization"] == "Bearer from-the-environment"


def test_a_token_is_not_sent_in_the_clear_to_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match="in the clear"):
            kind("example.test:8001", token="secret")
    (tmp_path / "token").write_text("secret")
    flags = ["--url", "example.test:8001", "--token-file", str(tmp_path / "token")]
    assert main(["models", *flags]) == 1
    said = capsys.readouterr().err
    assert "in the clear" in said
    assert "secret" not in said


def test_unless_that_was_said() -> None:
    shown = (("authorization", "Bearer a"),)
    assert authorization("a", "example.test:1", None, in_the_clear=True) == shown
    assert authorization("a", "example.test:1", Tls()) == shown
    assert authorization("a", "localhost:1", None) == shown
    assert authorization(None, "example.test:1", None) == ()


@pytest.mark.parametrize("token", ["", "a b", "a\n", "\xe4"])
def test_a_token_that_no_header_can_carry_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        authorization(token, "localhost:1", None)


def test_a_token_in_the_clear_goes_past_proxies(
    server: OipServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Client(server.address, token="secret") as client:
        client.infer("digits", inputs=INPUT)
    # The same host, by an address that is not one of its own.
    elsewhere = server.address.replace("127.0.0.1", "0.0.0.0")
    with Client(elsewhere, timeout=5.0) as other, pytest.raises(Unavailable):
        other.infer("digits", inputs=INPUT)


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1:8001", True),
        ("127.8.0.1:8001", True),
        ("localhost:8001", True),
        ("[::1]:8001", True),
        ("dns:///localhost:8001", True),
        ("dns:localhost:8001", True),
        ("ipv4:127.0.0.1:8001", True),
        ("ipv6:[::1]:8001", True),
        ("unix:/run/inferd.sock", True),
        ("10.0.0.7:8001", False),
        ("example.test:8001", False),
        ("localhost.example.test:8001", False),
        ("ipv4:127.0.0.1:8001,10.0.0.7:8001", False),
        ("dns://10.0.0.7/localhost:8001", False),
        ("xds:///localhost:8001", False),
        ("", False),
    ],
)
def test_only_what_surely_stays_on_this_host_is_local(address: str, local: bool) -> None:
    assert is_local(address) is local


def test_a_certificate_and_its_key_go_together() -> None:
    for half in ({"certificate": b"x"}, {"private_key": b"x"}):
        with pytest.raises(ValueError, match="go together"):
            Tls(**half)


def test_a_key_is_not_shown(papers: Papers) -> None:
    assert "PRIVATE" not in repr(papers.tls)
