"""A store in object storage, on a real server that speaks S3."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic, time
from uuid import uuid4

import numpy as np
import pytest
from inferd_client.replay.recording import Recording
from inferd_server.errors import SettingsError
from inferd_server.models.releases import Mirror
from inferd_server.monitoring.recorder import Recorder, make_recorder
from inferd_server.monitoring.samples import Sample
from inferd_server.settings.monitoring import MonitoringSettings
from inferd_store.backups import open_backups
from inferd_store.errors import (
    AccessDenied,
    Conflict,
    Damaged,
    NotAStore,
    NotThere,
    ReadOnly,
    StoreError,
    StoreFull,
    Unreachable,
)
from inferd_store.objects import ABSENT, ANY
from inferd_store.remote import RemoteObjects
from inferd_store.restoring import read_saved, restore
from inferd_store.store import Store, open_store
from inferd_store.transfer import PARTIAL, fetch

from tests.fakes.cutting_proxy import CuttingProxy
from tests.server.lifecycle.stores import check, following, models_of, store_of
from tests.server.serving import infer_request, rows
from tests.store.releases import BY, add, made, whole
from tests.store.seaweed import BUCKET, S3Server, s3_server
from tests.store.test_store import moves_at_once

MIB = 2**20
PATIENCE_S = 30.0
SOME, MANY = 1, 20
"""Rounds in which many move a label at once."""


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def address(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return where no store is yet; the environment has the credentials of a writer."""
    use(monkeypatch, s3)
    return f"s3://{BUCKET}/{uuid4().hex}"


def use(
    monkeypatch: pytest.MonkeyPatch,
    s3: S3Server,
    who: str = "writer",
    secret: str | None = None,
    port: int | None = None,
) -> None:
    for name, value in s3.environment(who, secret, port).items():
        monkeypatch.setenv(name, value)


def test_conditional_writes_hold(address: str) -> None:
    objects = RemoteObjects(address)
    objects.put("a", b"1", ABSENT)
    with pytest.raises(Conflict):
        objects.put("a", b"2", ABSENT)
    first = objects.get("a")
    objects.put("a", b"2", first.etag)
    with pytest.raises(Conflict):
        objects.put("a", b"3", first.etag)
    with pytest.raises(Conflict):
        objects.put("b", b"1", first.etag)
    objects.put("a", b"4", ANY)
    assert objects.get("a").data == b"4"
    assert [entry.key for entry in objects.list("")] == ["a"]
    objects.delete("a")
    objects.delete("a")
    assert objects.look("a") is None
    with pytest.raises(NotThere):
        objects.get("a")


def test_a_store_is_the_same_in_object_storage(address: str, tmp_path: Path) -> None:
    store = made(tmp_path, address)
    assert [add(store, tmp_path, b"a"), add(store, tmp_path, b"b" * 7 * MIB)] == [1, 2]
    store.move("m", "production", "1", BY)
    store.move("m", "production", "2", BY)
    assert store.rollback("m", "production", BY).version == 1
    assert store.names() == ["m"]
    store.remove("m", "2", BY)
    assert [event.what for event in store.log("m")] == [
        "add", "add", "label", "label", "rollback", "remove",
    ]  # fmt: skip
    whole(store)


def test_of_32_who_move_one_label_at_once_exactly_one_wins(address: str, tmp_path: Path) -> None:
    two_versions(address, tmp_path)
    moves_at_once(lambda: open_store(address), SOME)


@pytest.mark.slow
def test_of_32_who_move_one_label_at_once_exactly_one_wins_20_times(
    address: str, tmp_path: Path
) -> None:
    two_versions(address, tmp_path)
    moves_at_once(lambda: open_store(address), MANY)


def two_versions(address: str, folder: Path) -> Store:
    store = made(folder, address)
    add(store, folder, b"a")
    add(store, folder, b"b")
    return store


@pytest.mark.parametrize(
    ("who", "secret", "said"),
    [
        ("writer", "wrong", "the secret key is wrong"),
        ("nobody", "x", "the access key is not known there"),
    ],
)
def test_wrong_credentials_are_told(
    address: str,
    s3: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    who: str,
    secret: str,
    said: str,
) -> None:
    two_versions(address, tmp_path)
    use(monkeypatch, s3, who, secret)
    with pytest.raises(AccessDenied, match=said):
        open_store(address)
    with pytest.raises(AccessDenied, match=said):
        open_store(address, create=True)


def test_a_key_that_may_only_read_reads_and_is_told_when_it_writes(
    address: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    two_versions(address, tmp_path)
    use(monkeypatch, s3, "reader")
    store = open_store(address)
    assert store.release("m", "2")[0] == 2
    for change in (
        partial(store.move, "m", "production", "1", BY),
        partial(add, store, tmp_path, b"c"),
        partial(store.remove, "m", "1", BY),
    ):
        with pytest.raises(ReadOnly, match="cannot be written: the credentials do not allow it"):
            change()
    whole(store)
    assert store.record("m").labels == {}


def test_a_bucket_that_is_not_there_is_told(address: str) -> None:
    with pytest.raises(NotAStore, match="there is no such bucket"):
        open_store("s3://nobodys/store")
    with pytest.raises(NotAStore, match="there is no such bucket"):
        open_store("s3://nobodys/store", create=True)
    with pytest.raises(NotAStore, match="is no store of models"):
        open_store(address)


def test_a_server_that_is_not_there_is_told(
    address: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, s3, port=1)
    with pytest.raises(Unreachable, match="does not answer: HTTP error: error sending request"):
        open_store(address)


@pytest.mark.parametrize(
    ("code", "status", "kind", "said"),
    [
        ("RequestTimeTooSkewed", 403, AccessDenied, "this host's clock is wrong"),
        ("ExpiredToken", 400, AccessDenied, "the credentials have expired"),
        ("QuotaExceeded", 403, StoreFull, "there is no room left"),
        ("SomethingElse", 400, Unreachable, "does not answer"),
        ("SomethingElse", 403, AccessDenied, "do not allow"),
    ],
)
def test_an_answer_that_refuses_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, code: str, status: int, kind: type[StoreError], said: str
) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        use(monkeypatch, S3Server(server.server_address[1]))
        with pytest.raises(kind, match=said):
            open_store("s3://bucket/store")
        server.shutdown()


def test_a_download_that_is_cut_off_goes_on_where_it_was(
    address: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    size = 24 * MIB
    store = made(tmp_path, address)
    add(store, tmp_path, bytes(range(256)) * (size // 256))
    (file,) = store.release("m", "1")[1].files
    proxy = CuttingProxy(s3.port, [8 * MIB, 4 * MIB])
    use(monkeypatch, s3, port=proxy.port)
    try:
        fetch(RemoteObjects(address), file, tmp_path / "cache" / "blob", sleep=lambda _: None)
    finally:
        proxy.close()
    assert (tmp_path / "cache" / "blob").stat().st_size == size
    assert proxy.left == 0
    # What was on its way when it was cut off comes twice, and no more.
    assert proxy.passed < size + 8 * MIB


def test_a_download_of_a_process_that_ended_is_gone_on_with(address: str, tmp_path: Path) -> None:
    store = made(tmp_path, address)
    content = b"0123456789" * MIB
    add(store, tmp_path, content)
    (file,) = store.release("m", "1")[1].files
    target = tmp_path / "cache" / "blob"
    target.parent.mkdir()
    target.with_name(target.name + PARTIAL).write_bytes(content[: 9 * MIB])
    moved: list[int] = []
    fetch(store.objects, file, target, moved.append)
    assert moved[0] == 9 * MIB
    assert target.read_bytes() == content
    # A beginning of something else is seen, and thrown away.
    target.unlink()
    target.with_name(target.name + PARTIAL).write_bytes(b"x" * MIB)
    with pytest.raises(Damaged, match="not what its digest says"):
        fetch(store.objects, file, target)
    fetch(store.objects, file, target)
    assert target.read_bytes() == content


def test_a_server_follows_a_store_in_object_storage_and_outlives_it(
    s3: S3Server, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(tmp_path, address=address)
    proxy = CuttingProxy(s3.port, [])
    use(monkeypatch, s3, port=proxy.port)
    with following(store, tmp_path) as (server, follower):

        def version() -> str:
            return check(server.infer(infer_request("m", rows(7.0))), 7.0)

        assert version() == "1"
        store.move("m", "production", "2", BY)
        follower.look(models_of(server))
        assert version() == "2"
        proxy.close()
        store.move("m", "production", "3", BY)
        follower.look(models_of(server))
        assert version() == "2"
        assert follower.gauges()["inferd_store_unreachable"] == 1


def test_a_server_starts_with_what_it_knows_while_the_store_does_not_answer(
    s3: S3Server, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(tmp_path, address=address)
    store.move("m", "production", "2", BY)
    with following(store, tmp_path):
        pass
    use(monkeypatch, s3, port=1)
    with following(store, tmp_path) as (server, follower):
        assert check(server.infer(infer_request("m", rows(7.0))), 7.0) == "2"
        assert follower.gauges()["inferd_store_unreachable"] == 1
    with (
        pytest.raises(SettingsError, match="does not answer"),
        following(store, tmp_path / "elsewhere"),
    ):
        pass


def test_a_store_is_saved_to_object_storage_and_restored_from_it(
    s3: S3Server, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = made(tmp_path)
    add(store, tmp_path, bytes(24 * MIB))
    store.move("m", "production", "1", BY)
    place = open_backups(f"{address}/backups", time, create=True)
    name = place.make(store, (), BY).name
    assert place.make(store, (), BY, verify=True).sent == 0
    # What is damaged on its way gets nowhere.
    digest = store.release("m", str(add(store, tmp_path, bytes(9 * MIB))))[1].files[0].digest
    source = store.objects.path(f"blobs/sha256/{digest}")
    assert source is not None
    source.write_bytes(bytes(8 * MIB) + b"x" * MIB)
    with pytest.raises(Damaged, match="version 2 of model 'm'"):
        place.make(store, (), BY)
    assert digest not in place.blobs.there()
    # The connection is cut in the middle, and the transfer goes on where it was.
    proxy = CuttingProxy(s3.port, [8 * MIB])
    use(monkeypatch, s3, port=proxy.port)
    try:
        cut = open_backups(place.address, time)
        folder = made(tmp_path / "folder")
        restore(cut, read_saved(cut, name), folder, BY)
    finally:
        proxy.close()
    assert proxy.left == 0
    assert proxy.passed < 33 * MIB
    whole(folder)
    # And from one into another there, of which a second backup is made.
    use(monkeypatch, s3)
    there = made(tmp_path, f"{address}/store")
    restore(place, read_saved(place, name), there, BY)
    whole(there)
    assert place.make(there, (), BY).sent < MIB
    assert [place.check(one) for one in place.names()] == [[], [], []]
    assert place.remove(place.names()[:2]) == 0
    assert place.check(place.latest()) == []


def test_backups_in_object_storage_that_may_only_be_read_are_listed_and_restored(
    s3: S3Server, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = made(tmp_path)
    add(store, tmp_path)
    name = open_backups(address, time, create=True).make(store, (), BY).name
    use(monkeypatch, s3, "reader")
    place = open_backups(address, time)
    with pytest.raises(ReadOnly, match="cannot be written: the credentials do not allow it"):
        place.make(store, (), BY)
    assert place.names() == [name]
    restored = made(tmp_path / "restored")
    restore(place, read_saved(place, name), restored, BY)
    whole(restored)
    use(monkeypatch, s3, "writer", "wrong")
    with pytest.raises(AccessDenied, match="the secret key is wrong"):
        open_backups(address, time)
    use(monkeypatch, s3)
    with pytest.raises(NotAStore, match="there is no such bucket"):
        open_backups("s3://nobodys/backups", time, create=True)


def test_a_file_of_the_cache_that_was_changed_is_fetched_anew(address: str, tmp_path: Path) -> None:
    store = made(tmp_path, address)
    add(store, tmp_path, b"right")
    release = store.release("m", "1")[1]
    cached = tmp_path / "cache" / "blobs" / release.files[0].digest
    for number in ("first", "second"):
        (tmp_path / number).mkdir()
        Mirror(tmp_path / number, store, tmp_path / "cache").place("m", 1, release, lambda _: None)
        assert (tmp_path / number / "m" / "1" / "model.onnx").read_bytes() == b"right"
        cached.write_bytes(b"wrong")


def test_a_recording_in_object_storage_is_bounded_there_and_read_back(address: str) -> None:
    settings = MonitoringSettings(record_to=address, record_part_bytes=4096, record_max_bytes=20000)
    recorder = make_recorder(settings, monotonic)
    assert recorder is not None
    row = {"x": np.zeros(3000, np.uint8)}
    for at in range(1, 11):
        recorder(Sample("m", "1", "", float(at), row, row))
        wait_until_written(recorder)
    assert recorder.close(PATIENCE_S)
    at = [one.at for one in Recording(address)]
    assert at == list(range(11 - len(at), 11))
    assert 0 < len(at) < 10


def wait_until_written(recorder: Recorder) -> None:
    with recorder._changed:
        assert recorder._changed.wait_for(lambda: not recorder._parts._held, PATIENCE_S)


def test_a_recording_goes_nowhere_where_object_storage_is_gone_and_nobody_waits(
    monkeypatch: pytest.MonkeyPatch, s3: S3Server
) -> None:
    use(monkeypatch, s3, secret="wrong")
    recorder = make_recorder(MonitoringSettings(record_to=f"s3://{BUCKET}/refused"), monotonic)
    assert recorder is not None
    recorder(Sample("m", "1", "", 1.0, {}, {}))
    assert recorder.close(PATIENCE_S)
    assert recorder.counters() == {("inferd_recording_dropped_total", "m", 1): 1.0}
