"""Stores and releases for tests, made without an engine."""

from __future__ import annotations

from pathlib import Path

from inferd_store.adding import Sources, draft_of
from inferd_store.release import About, Contents, Release, StoredTensor
from inferd_store.store import By, Store, open_store

BY = By("ann", "because")
CONTENTS = Contents((StoredTensor("x", "FP32", (None, 4)),), (StoredTensor("y", "FP32", (4,)),), 21)


def made(folder: Path, address: str = "") -> Store:
    return open_store(address or str(folder / "store"), create=True)


def add(store: Store, folder: Path, content: bytes = b"a", name: str = "m") -> int:
    """Add a release with a model file of that content, which nobody opens."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model.onnx"
    model.write_bytes(content)
    sources = Sources(draft_of(model))
    release = sources.release(CONTENTS, About(author="ann"), "2026-01-01T00:00:00.000+00:00")
    return store.add(name, release, sources.files, BY).version


def whole(store: Store) -> None:
    """See that everything that a store shows is there, and that no event is missing."""
    for entry in store.heads():
        record = store.record(entry.key.removeprefix("models/").removesuffix(".json"))
        for version in record.versions:
            release: Release = store.release(record.name, str(version))[1]
            for file in release.files:
                content = b"".join(store.objects.read(f"blobs/sha256/{file.digest}", 0))
                assert len(content) == file.size
        assert {label.version for label in record.labels.values()} <= set(record.versions)
        told = [event.sequence for event in store.log(record.name)]
        assert sorted(told) == list(range(1, record.sequence + 1))
