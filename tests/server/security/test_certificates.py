"""The files of certificates are used if they can be, and the last good ones if not."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from inferd_server.errors import CredentialsError, InferdError, SettingsError
from inferd_server.security.certificates import CertificateFiles
from inferd_server.security.opening import await_files, check_security, credentials_of
from inferd_server.security.validity import SOON_S, Validity, tell
from inferd_server.settings.security import SecuritySettings
from inferd_server.settings.sources import load_settings

from tests.server.security.certificates import Files, expired, issued, root
from tests.server.security.named import entry, written

Damage = Callable[[Files], object]
DAMAGES: dict[str, tuple[Damage, str]] = {
    "no key": (lambda f: f.key.write_bytes(b"no key"), "tls_certificate and tls_private_key"),
    "no certificate": (lambda f: f.certificate.write_bytes(b""), "tls_certificate and"),
    "half a key": (lambda f: f.key.write_bytes(f.key.read_bytes()[:100]), "tls_certificate and"),
    "key is gone": (lambda f: f.key.unlink(), "tls_private_key: "),
    "certificate is a folder": (
        lambda f: (f.certificate.unlink(), f.certificate.mkdir()),
        "tls_certificate: ",
    ),
    "no authority": (lambda f: f.client_ca.write_bytes(b"\xff"), "tls_client_ca must be"),
}


def opened(files: Files) -> CertificateFiles:
    return CertificateFiles(SecuritySettings(**files.settings(mutual=True)))  # type: ignore[arg-type]


def test_what_is_in_the_files_is_what_is_used(
    files: Files, authority: trustme.CA, stranger: trustme.CA
) -> None:
    source = opened(files)
    first = source()
    assert (first.private_key, first.certificate_chain, first.client_ca) == (
        files.key.read_bytes(),
        files.certificate.read_bytes(),
        root(authority),
    )
    assert first.require_client
    files.put(new := issued(authority, "127.0.0.1"))
    assert source().private_key == new.key
    files.client_ca.write_bytes(root(stranger))
    assert source().client_ca == root(stranger)


def test_an_expired_certificate_put_in_place_is_told_with_subject_and_end(
    files: Files, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    source = opened(files)
    good = source.gauges()["inferd_tls_certificate_expiry_timestamp_seconds"]
    assert good > time.time()
    files.put(expired(authority, "127.0.0.1"))
    source()
    source()
    (line,) = [vars(record) for record in caplog.records]
    assert line["levelname"] == "WARNING"
    assert "expired" in line["msg"]
    assert "organizationalUnitName=" in line["subject"]
    ends = datetime.strptime(line["ends"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert 0 < (datetime.now(UTC) - ends).total_seconds() < 2 * 86_400
    (told,) = source.gauges().values()
    assert told == ends.timestamp()


def test_a_good_certificate_put_in_place_is_told_as_well(
    files: Files, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    source = opened(files)
    files.put(issued(authority, "127.0.0.1"))
    source()
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("INFO", "this TLS certificate is used")


@pytest.mark.parametrize(
    ("now", "level", "words"),
    [
        (0.0, "WARNING", "not valid yet"),
        (150.0, "INFO", "is used"),
        (301.0, "WARNING", "expires soon"),
        (301.0 + SOON_S, "WARNING", "has expired"),
    ],
)
def test_what_is_told_of_a_certificate_depends_on_the_day(
    now: float, level: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    tell(Validity("commonName=x", 100.0, 300.0 + SOON_S), now)
    (record,) = caplog.records
    assert record.levelname == level
    assert words in record.getMessage()


@pytest.mark.parametrize("name", DAMAGES)
def test_files_that_cannot_be_used_are_named_at_the_start(files: Files, name: str) -> None:
    damage, sentence = DAMAGES[name]
    damage(files)
    with pytest.raises(CredentialsError) as caught:
        opened(files)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("name", DAMAGES)
def test_files_that_break_leave_what_was_and_are_said_once(
    files: Files, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = opened(files)
    before = source()
    damage, sentence = DAMAGES[name]
    damage(files)
    assert [source() for _ in range(3)] == [before] * 3
    (said,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "the old ones stay" in said.getMessage()
    assert sentence in said.getMessage()


def test_a_key_of_another_certificate_is_no_good_until_its_certificate_comes(
    files: Files, authority: trustme.CA
) -> None:
    source = opened(files)
    before = source()
    new = issued(authority, "127.0.0.1")
    files.key.write_bytes(new.key)
    assert source() == before
    files.certificate.write_bytes(new.chain)
    assert source().certificate_chain == new.chain


def refusal(**settings: str) -> InferdError:
    with pytest.raises(InferdError) as caught:
        check_security(load_settings(settings, {}))
    return caught.value


def test_settings_that_go_together_are_missed_when_one_is_there(files: Files) -> None:
    whole = files.settings(mutual=True)
    for alone in ("tls_certificate", "tls_private_key"):
        error = refusal(**{alone: whole[alone]})
        assert isinstance(error, SettingsError)
        assert "go together" in str(error)
    assert "needs TLS" in str(refusal(tls_client_ca=whole["tls_client_ca"]))


def test_a_start_finds_files_that_cannot_be_used(files: Files, tmp_path: Path) -> None:
    files.key.unlink()
    assert isinstance(refusal(**files.settings()), CredentialsError)
    assert isinstance(refusal(identities_file=str(tmp_path / "none")), SettingsError)


def test_a_process_that_starts_anew_waits_for_files_that_are_being_replaced(
    files: Files, tmp_path: Path, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    identities = written(tmp_path / "identities.yaml", entry("a", "read"))
    given = {**files.settings(), "identities_file": str(identities)}
    files.key.write_bytes(b"half")
    identities.write_text("identities: [")
    repairs = iter(
        [
            lambda: None,
            lambda: files.put(issued(authority, "127.0.0.1")),
            lambda: written(identities, entry("a", "read")),
        ]
    )
    await_files(load_settings(given, {}), lambda _: next(repairs)())
    assert next(repairs, None) is None
    told = [record.error for record in caplog.records if record.levelname == "ERROR"]  # type: ignore[attr-defined]
    assert [text.split()[0] for text in told] == ["tls_certificate", str(identities)]


def test_without_certificates_there_is_no_tls() -> None:
    assert credentials_of(load_settings({}, {})) is None


@pytest.mark.parametrize(
    ("entries", "more", "sentence"),
    [
        ([entry("a", "read")], {"host": "0.0.0.0"}, "tokens travel in the clear"),
        ([entry("a", "read", certificates=["x"])], {}, "never met: tls_client_ca is not set"),
        ([entry("a", "read")], {}, ""),
    ],
)
def test_what_is_set_up_in_vain_or_dangerously_is_said(
    entries: list[dict[str, object]],
    more: dict[str, str],
    sentence: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = written(tmp_path / "identities.yaml", *entries)
    check_security(load_settings({"identities_file": str(path), **more}, {}))
    assert [sentence in record.getMessage() for record in caplog.records] == [True] * bool(sentence)
