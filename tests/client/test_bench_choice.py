from __future__ import annotations

import pytest
from inferd_client.bench.choice import Choice, choose, split_address

HERE = "127.0.0.1:8001"


def test_fast_client_sends_where_it_can() -> None:
    assert choose("auto", HERE, installed=True) == Choice("fast")
    assert choose("auto", HERE, installed=True, needs="--check") == Choice("fast")


def test_grpc_sends_where_it_was_asked_for_or_nothing_else_can_and_the_reason_is_told() -> None:
    assert choose("grpc", HERE, installed=True) == Choice("grpc")
    assert "hpack" in choose("auto", HERE, installed=False).reason
    chosen = choose("auto", "dns:///a:1", installed=True)
    assert (chosen.name, "dns:///a:1" in chosen.reason) == ("grpc", True)


@pytest.mark.parametrize(
    ("asked", "installed", "needs", "text"),
    [
        ("fast", False, "", "--client fast needs the fast client: the package hpack"),
        ("auto", False, "--check", "--check needs the fast client: the package hpack"),
        ("grpc", True, "--per-stream", "--per-stream needs the fast client"),
    ],
)
def test_what_cannot_be_done_is_refused(asked: str, installed: bool, needs: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        choose(asked, HERE, installed=installed, needs=needs)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("localhost:80", ("localhost", 80)),
        ("[::1]:8001", ("::1", 8001)),
        ("a.b-c.d:1", ("a.b-c.d", 1)),
    ],
)
def test_address_is_host_and_port(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["host", "::1", "unix:/a/b", "dns:///a:1", "a:b", "a:123456"])
def test_other_targets_of_grpc_are_left_to_it(address: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        split_address(address)
