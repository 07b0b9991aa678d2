"""A store, and a place for its backups."""

from __future__ import annotations

from pathlib import Path

import pytest
from inferd_store.backups import Backups, open_backups
from inferd_store.store import Store

from tests.store.releases import BY, add, made
from tests.store.saving import Ticking


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store of two models, one of which has two versions and a label."""
    store = made(tmp_path)
    for content in (b"a", b"b"):
        add(store, tmp_path, content)
    store.move("m", "production", "2", BY)
    add(store, tmp_path, b"c", "n")
    return store


@pytest.fixture
def place(tmp_path: Path) -> Backups:
    return open_backups(str(tmp_path / "backups"), Ticking(), create=True)
