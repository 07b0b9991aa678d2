"""The file of identities: what it may say, and what is told of mistakes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from inferd_server.errors import SettingsError
from inferd_server.security.identities_file import read_identities
from inferd_server.security.identity import Identity
from inferd_server.security.permissions import covered

from tests.server.security.named import digest, entry, written


def test_identities_are_found_by_their_tokens_and_certificates(tmp_path: Path) -> None:
    known = read_identities(
        written(
            tmp_path / "file.yaml",
            entry("a", "infer", tokens_sha256=[digest("old"), digest("new").upper()]),
            entry("b", "read", "admin", certificates=["b.internal"], max_in_flight=3),
            entry("c", requests_per_second=0.5),
        )
    )
    a = Identity("a", covered(["infer"]))
    b = Identity("b", covered(["read", "admin"]), max_in_flight=3)
    c = Identity("c", frozenset(), requests_per_second=0.5)
    tokens = {"old": a, "new": a, "c-token": c}
    assert known.by_token == {bytes.fromhex(digest(text)): who for text, who in tokens.items()}
    assert known.by_certificate == {"b.internal": b}


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        (
            [entry("a", "everything")],
            "permissions.0: Input should be 'infer', 'read', 'feedback' or 'admin'",
        ),
        ([entry("a", "read", tokens_sha256=["abc"])], "tokens_sha256.0: String should match"),
        (
            [entry("a", "read", tokens_sha256=[digest("")])],
            "tokens_sha256.0: Value error, is the hash of an empty text",
        ),
        (
            [entry("a", "read", tokens_sha256=[digest("\n").upper()])],
            "is the hash of an empty text",
        ),
        ([entry("", "read")], "name: String should have at least 1 character"),
        ([entry("a", "read", max_in_flight=0)], "max_in_flight: Input should be greater"),
        ([entry("a", "read", requests_per_second=0.0)], "requests_per_second: Input should be gr"),
        ([entry("a", "read", token="x")], "token: "),
        ([{"name": "a", "permissions": ["read"]}], "tokens_sha256 or certificates must say"),
        ([entry("a", "read"), entry("a", "infer", certificates=["x"])], "'a' has a name that"),
        (
            [entry("a", "read"), entry("b", "read", tokens_sha256=[digest("a-token")])],
            "'b' has a token that stands there twice",
        ),
        (
            [entry(n, "read", certificates=["x"]) for n in ("a", "b")],
            "'b' has a certificate that stands there twice",
        ),
    ],
)
def test_a_mistake_is_named_with_the_file(
    entries: list[dict[str, Any]], sentence: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "file.yaml", *entries)
    with pytest.raises(SettingsError) as caught:
        read_identities(path)
    assert str(caught.value).startswith(str(path))
    assert sentence in str(caught.value)


def test_a_pipe_or_a_device_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(SettingsError, match=f"{path} cannot be read: .*"):
            read_identities(path)


def test_a_token_written_in_the_place_of_its_hash_is_not_told_to_the_log(tmp_path: Path) -> None:
    path = written(tmp_path / "file.yaml", entry("a", "read", tokens_sha256=["my-token"]))
    with pytest.raises(SettingsError) as caught:
        read_identities(path)
    assert "tokens_sha256.0" in str(caught.value)
    assert "my-token" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "identities: 5", "[]", "a: [", "tokens: []"])
def test_another_file_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"file\.yaml"):
        read_identities(path)
    with pytest.raises(SettingsError, match="cannot be read"):
        read_identities(tmp_path / "none.yaml")
