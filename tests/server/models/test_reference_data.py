"""reference.npz beside a model is what requests are compared with; else a sentence says why not."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inferd.tensors import Array
from inferd_engines.engine import EngineError
from inferd_server.monitoring.drift.reference import LEAST_ROWS, Reference
from inferd_store.release import REFERENCE_FILE

from tests import models
from tests.fakes.engine import FakeEngine
from tests.server.serving import Running, infer_request, rows, running

ROWS = 300
X = np.random.default_rng(1).random((ROWS, 4)).astype(np.float32)
WATCHING: Mapping[str, object] = {"sample_share": 1, "drift_cpu_share": 1}


def repository(folder: Path, yaml: str = "", **arrays: Any) -> Path:
    """Return a repository with the model `m`, INPUT0 [n, 4], and its reference."""
    version = folder / "m" / "1"
    models.save(models.scale(2.0), version / "model.onnx")
    if yaml:
        (folder / "m" / "model.yaml").write_text(yaml)
    if arrays:
        np.savez(version / REFERENCE_FILE, **arrays)
    return folder


def reference(server: Running) -> Reference | None:
    """Return what requests of the model are compared with."""
    assert server.server is not None
    (entry,) = server.server.repository.entries()
    assert entry.handle is not None
    return server.server.endpoint.observers.drift._references.find(entry.handle.drift)


def counted(found: Reference, name: str) -> int:
    """Return the rows of a feature, over all columns of a tensor."""
    return sum(sum(one.counts) for one in found.features if one.name.startswith(name)) // 4


def test_a_reference_of_inputs_is_run_through_the_model(tmp_path: Path) -> None:
    with running(repository(tmp_path, INPUT0=X), **WATCHING) as server:
        found = reference(server)
    assert found is not None
    assert (found.rows, found.source) == (ROWS, REFERENCE_FILE)
    before, after = (
        next(one for one in found.features if one.name == name)
        for name in ("INPUT0[1]", "OUTPUT0[1]")
    )
    assert np.array(after.edges) == pytest.approx(2 * np.array(before.edges), rel=1e-4)


def test_outputs_that_a_reference_brings_are_taken_as_they_are(tmp_path: Path) -> None:
    with running(repository(tmp_path, INPUT0=X, OUTPUT0=X * 7), **WATCHING) as server:
        found = reference(server)
    assert found is not None
    assert max(found.features[0].edges) > 6


def test_a_reference_of_other_numbers_is_cast_as_the_input_is_sent(tmp_path: Path) -> None:
    images = (X * 100).astype(np.uint8)
    with running(repository(tmp_path, INPUT0=images), **WATCHING) as server:
        found = reference(server)
    assert found is not None
    assert counted(found, "OUTPUT0") == ROWS


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"other": X}, "no array of an input; INPUT0 were expected"),
        ({"INPUT0": X[:, :3]}, "'INPUT0' has shape [300, 3]; [-1, 4] was expected"),
        ({"INPUT0": X[: LEAST_ROWS - 1]}, "fewer than 100"),
        ({"INPUT0": X, "OUTPUT0": X[:200]}, "do not have the same number of rows"),
        ({"INPUT0": np.array([["a"] * 4] * ROWS)}, "'INPUT0' is <U1; FP32 was expected"),
        ({"INPUT0": np.array([[{}] * 4] * ROWS, object)}, "no file of arrays"),
    ],
    ids=["name", "shape", "few", "uneven", "text", "pickle"],
)
def test_a_reference_that_does_not_fit_is_told_and_the_model_serves(
    tmp_path: Path, arrays: dict[str, Array], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with running(repository(tmp_path, **arrays), **WATCHING) as server:
        assert reference(server) is None
        assert server.infer(infer_request("m", rows(1.0))).model_name == "m"
    (line,) = [one for one in caplog.records if one.message == "drift is not watched"]
    assert why in line.why  # type: ignore[attr-defined]


def single_array() -> bytes:
    written = io.BytesIO()
    np.save(written, X)
    return written.getvalue()


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 torn", single_array()])
def test_a_damaged_reference_is_told_and_the_model_serves(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    folder = repository(tmp_path)
    (folder / "m" / "1" / REFERENCE_FILE).write_bytes(content)
    with running(folder, **WATCHING) as server:
        assert reference(server) is None
    assert "drift is not watched" in caplog.text


@pytest.mark.parametrize(
    ("yaml", "settings", "told"),
    [
        ("drift: {watch: false}", {}, False),
        ("", {"drift_cpu_share": 0}, False),
        ("", {"sample_share": 0}, True),
        ("sample_share: 0.0", {}, True),
    ],
)
def test_drift_can_be_off_and_what_is_only_half_on_is_told(
    tmp_path: Path,
    yaml: str,
    settings: dict[str, object],
    told: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with running(repository(tmp_path, yaml, INPUT0=X), **{**WATCHING, **settings}) as server:
        assert reference(server) is None
    assert ("sample_share is 0" in str([getattr(one, "why", "") for one in caplog.records])) == told


def test_a_reference_is_made_once_and_found_again_at_the_next_start(tmp_path: Path) -> None:
    folder = repository(tmp_path / "models", INPUT0=X)
    kept = {"verdict_store": tmp_path / "kept"}
    with running(folder, **WATCHING, **kept) as server:
        first = reference(server)
    (file,) = (tmp_path / "kept" / "drift").iterdir()
    written = file.stat().st_mtime_ns
    with running(folder, **WATCHING, **kept) as server:
        assert reference(server) == first
    assert file.stat().st_mtime_ns == written


def test_another_reference_or_other_settings_have_another_key(tmp_path: Path) -> None:
    keys = set()
    for yaml, data in (("", X), ("", X + 1), ("drift: {logits: [OUTPUT0]}", X)):
        with running(repository(tmp_path, yaml, INPUT0=data), **WATCHING) as server:
            assert server.server is not None
            (entry,) = server.server.repository.entries()
            assert entry.handle is not None
            keys.add(entry.handle.drift)
    assert len(keys) == 3


def test_outputs_that_take_too_long_are_left_out_and_inputs_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferd_server.models.reference_data.RUN_S", 0.0)
    folder = repository(tmp_path, "max_batch_size: 8", INPUT0=X)
    with running(folder, lambda _, __: FakeEngine(), **WATCHING) as server:
        found = reference(server)
    assert found is not None
    assert {one.name[:6] for one in found.features} == {"INPUT0"}
    assert "take too long" in caplog.text


def picky(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """Take zeros alone."""
    if inputs["INPUT0"].any():
        raise EngineError("only zeros are taken")
    return {"OUTPUT0": inputs["INPUT0"]}


def test_a_reference_that_the_model_fails_on_is_told_and_the_model_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = repository(tmp_path, INPUT0=X)
    with running(folder, lambda _, __: FakeEngine(compute=picky), **WATCHING) as server:
        assert reference(server) is None
        assert server.infer(infer_request("m", rows(0.0))).model_name == "m"
    (line,) = [one for one in caplog.records if one.message == "drift is not watched"]
    assert "only zeros are taken" in line.why  # type: ignore[attr-defined]
