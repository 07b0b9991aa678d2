"""Stores of real models for servers of tests: version N of `m` multiplies by FACTORS[N]."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from inferd.oip.v2.inference_pb2 import ModelInferResponse
from inferd_server.models.following import Follower, follow
from inferd_server.one_process import OwnModels
from inferd_server.settings.sources import load_settings
from inferd_store.adding import Sources, draft_of
from inferd_store.release import About
from inferd_store.store import Store, open_store

from tests import models
from tests.server.serving import Running, arrays, running
from tests.store.releases import BY, CONTENTS

FACTORS = {"1": 2.0, "2": 3.0, "3": 5.0}


def store_of(folder: Path, name: str = "m", address: str = "", config: str = "") -> Store:
    """Return a store of one model, whose first version is in production.

    Args:
        folder: for its files, and the store.
        name: of the model.
        address: of the store elsewhere, or of one that is there.
        config: the model.yaml of each version.
    """
    store = open_store(address or str(folder / "store"), create=True)
    for version, factor in FACTORS.items():
        path = models.save(models.scale(factor), folder / version / "model.onnx")
        if config:
            (path.parent / "model.yaml").write_text(config)
        sources = Sources(draft_of(path))
        release = sources.release(CONTENTS, About(), "2026-01-01T00:00:00.000+00:00")
        assert str(store.add(name, release, sources.files, BY).version) == version
    store.move(name, "production", "1", BY)
    return store


def check(response: ModelInferResponse, value: float) -> str:
    """See that an answer is the one of the version that it names, and return that."""
    wanted = np.full((1, 4), value * FACTORS[response.model_version], np.float32)
    np.testing.assert_array_equal(arrays(response)["OUTPUT0"], wanted)
    return response.model_version


@contextmanager
def following(
    store: Store,
    folder: Path,
    warm: float = 300.0,
    terms: Sequence[str] = ("labels",),
    **how: object,
) -> Iterator[tuple[Running, Follower]]:
    """Serve a store in this process; it is looked at when the test says so."""
    flags = {
        "model_store": store.address,
        "store_keep_warm_s": str(warm),
        "store_versions": ",".join(terms),
        "store_cache": str(folder / "cache"),
    }
    settings, thread = follow(load_settings(flags, {}), {})
    assert thread is not None
    places = settings.repository
    links = ",".join(map(str, places.link_folders))
    try:
        with running(places.model_repository, link_folders=links, **how) as server:  # type: ignore[arg-type]
            yield server, thread.follower
    finally:
        thread.stop()


def models_of(server: Running) -> OwnModels:
    assert server.server is not None
    return OwnModels(server.server)
