"""Samples are the requests as they were sent and the answers as they were given."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from inferd.oip.v2 import inference_pb2 as pb
from inferd.recording import Recorded
from inferd_client.replay.recording import Recording
from inferd_engines.engine import EngineError
from inferd_server.inference.sampling import Sampling
from inferd_server.inference.shared_memory import RegionTable
from inferd_server.inference.validation import Admitted
from inferd_server.models.config import ModelConfig
from inferd_server.models.loading import check_masks
from inferd_server.models.version import Handle
from inferd_server.monitoring.samples import Tap

from tests import models
from tests.fakes.clock import FakeClock
from tests.server.inference.outputs import filled
from tests.server.inference.test_shared_memory import SHM, place, register
from tests.server.serving import (
    FakeEngines,
    Running,
    arrays,
    infer_request,
    metrics_text,
    rows,
    running,
    running_fake,
)

SERVED = {
    **{f"rows_{name}": models.identity(name) for name in models.ELEMENT_TYPES},
    "simple": models.add_sub(),
    "no_batch": models.identity("FP32", dims=(3,)),
    "unseen": models.identity("FP32"),
    "summing": models.summing(),
}
YAML = {
    "rows_FP32": "priority_levels: 3\n",
    "unseen": "sample_share: 0\n",
    "summing": models.SUMMING + "sample_share: 0.5\n",
}


@contextmanager
def sampled(folder: Path, *names: str, **settings: object) -> Iterator[Running]:
    """Serve models all of whose requests are recorded in `recording`."""
    served = {name: SERVED[name] for name in names}
    yaml = {name: text for name, text in YAML.items() if name in names}
    repository = models.repository(folder / "models", served, yaml)
    wanted = {"sample_share": 1, "record_to": folder / "recording", "record_format": "npz"}
    with running(repository, **wanted, **settings) as server:
        yield server


def recorded(folder: Path) -> list[Recorded]:
    return list(Recording(str(folder / "recording")))


def equal(first: np.ndarray, second: np.ndarray) -> bool:
    """Bit for bit."""
    assert (first.dtype, first.shape) == (second.dtype, second.shape)
    if first.dtype.hasobject:
        return first.tolist() == second.tolist()
    return first.tobytes() == second.tobytes()


def test_every_datatype_is_sampled_as_it_was_sent_and_answered(tmp_path: Path) -> None:
    sent = []
    with sampled(tmp_path, *SERVED) as server:
        for typed in (False, True):
            for name in models.ELEMENT_TYPES:
                if not typed or name not in ("FP16", "BF16"):
                    rows_ = filled(name, (2, 4), len(sent))
                    request = infer_request(
                        f"rows_{name}", {"INPUT0": rows_}, typed=typed, ident=f"{name} {typed}"
                    )
                    answer = arrays(server.infer(request))["OUTPUT0"]
                    sent.append((request.id, rows_, answer))
    found = recorded(tmp_path)
    assert [one.id for one in found] == [ident for ident, *_ in sent]
    for one, (_, given, answer) in zip(found, sent, strict=True):
        assert (list(one.inputs), list(one.outputs)) == (["INPUT0"], ["OUTPUT0"])
        assert equal(one.inputs["INPUT0"], given)
        assert equal(one.outputs["OUTPUT0"], answer)
        assert (one.version, one.masked_inputs, one.masked_outputs) == ("1", [], [])


def test_what_a_request_asks_for_is_kept_and_classes_are_kept_as_tensors(tmp_path: Path) -> None:
    request = infer_request("rows_FP32", rows(1.0, 2.0), ident="a")
    request.parameters["priority"].int64_param = 3
    request.parameters["timeout"].uint64_param = 9_000_000
    request.parameters["note"].string_param = "own"
    request.outputs.add(name="OUTPUT0").parameters["classification"].int64_param = 2
    difference = infer_request("simple", {n: np.ones((1, 16), np.int32) for n in INPUTS})
    difference.outputs.add(name="OUTPUT1")
    with sampled(tmp_path, "rows_FP32", "simple") as server:
        for _ in range(2):
            assert len(server.infer(request).raw_output_contents) == 1
        server.infer(difference)
    first, again, other = recorded(tmp_path)
    assert first.parameters == {"priority": 3, "timeout": 9_000_000, "note": "own"}
    for one in (first, again):
        assert equal(one.outputs["OUTPUT0"], rows(1.0, 2.0)["INPUT0"])
    assert list(other.outputs) == ["OUTPUT1"]


def test_a_sampled_request_that_asks_for_a_token_gets_one_and_is_sampled(tmp_path: Path) -> None:
    request = infer_request("rows_FP32", rows(1.0, 2.0), ident="a")
    request.parameters["inferd_prediction_token"].bool_param = True
    with sampled(tmp_path, "rows_FP32") as server:
        # The second takes the prebuilt parts.
        answers = [server.infer(request) for _ in range(2)]
    tokens = {answer.parameters["inferd_prediction_token"].string_param for answer in answers}
    assert len(tokens - {""}) == 2
    found = recorded(tmp_path)
    assert [one.id for one in found] == [answer.id for answer in answers] == ["a", "a"]
    for one in found:
        assert equal(one.outputs["OUTPUT0"], rows(1.0, 2.0)["INPUT0"])


INPUTS = ("INPUT0", "INPUT1")


def test_what_is_refused_or_not_to_be_sampled_is_not_recorded(tmp_path: Path) -> None:
    with sampled(tmp_path, "rows_FP32", "unseen", "no_batch") as server:
        server.refused(infer_request("rows_FP32", {"INPUT0": np.zeros((1, 5), np.float32)}))
        server.infer(infer_request("unseen", rows(1.0)))
        server.infer(infer_request("no_batch", {"INPUT0": np.zeros(3, np.float32)}))
        assert "inferd_samples_dropped_total" not in metrics_text(server.metrics_port)
    assert [one.model for one in recorded(tmp_path)] == ["no_batch"]


def test_tensors_in_shared_memory_are_sampled_as_they_were_at_the_answer(tmp_path: Path) -> None:
    segment = SHM / f"inferd-test-{uuid.uuid4().hex}"
    segment.write_bytes(bytes(4096))
    values = rows(1.0, 2.0)["INPUT0"]
    try:
        with sampled(tmp_path, "rows_FP32") as server:
            register(server, segment.name, f"/{segment.name}")
            request = infer_request("rows_FP32", {"INPUT0": values})
            del request.raw_input_contents[:]
            place(request.inputs[0], segment.name, values.nbytes)
            place(request.outputs.add(name="OUTPUT0"), segment.name, values.nbytes, 1024)
            for factor in (1, 2):
                with segment.open("r+b") as memory:
                    memory.write((values * factor).tobytes())
                server.infer(request)
            with segment.open("r+b") as memory:
                memory.write(bytes(4096))
    finally:
        segment.unlink()
    for factor, one in enumerate(recorded(tmp_path), 1):
        assert equal(one.inputs["INPUT0"], values * factor)
        assert equal(one.outputs["OUTPUT0"], values * factor)


def test_a_sequence_is_recorded_whole_or_not_at_all(tmp_path: Path) -> None:
    with sampled(tmp_path, "summing") as server:
        for value in (1.0, 2.0, 3.0):
            for key in range(1, 41):
                request = infer_request("summing", rows(value))
                request.parameters["sequence_id"].int64_param = key
                request.parameters["sequence_start"].bool_param = value == 1.0
                request.parameters["sequence_end"].bool_param = value == 3.0
                server.infer(request)
    found: dict[object, list[Recorded]] = {}
    for one in recorded(tmp_path):
        found.setdefault(one.parameters["sequence_id"], []).append(one)
    assert {len(steps) for steps in found.values()} == {3}
    assert 15 <= len(found) <= 25
    for steps in found.values():
        assert [one.outputs["OUTPUT0"][0, 0] for one in steps] == [1.0, 3.0, 6.0]
        assert [one.parameters["sequence_start"] for one in steps] == [True, False, False]


def test_trials_and_answers_that_were_kept_are_not_sampled(tmp_path: Path) -> None:
    engines = FakeEngines()
    recording = {"sample_share": 1, "record_to": tmp_path / "recording"}
    (tmp_path / "m" / "fake").mkdir(parents=True)
    (tmp_path / "m" / "fake" / "model.yaml").write_text("response_cache: {}\n")
    with running_fake(tmp_path / "m", engines, **recording) as (server, _):
        assert server.server is not None
        server.server.endpoint.checks.round(10.0)
        for _ in range(3):
            server.infer(infer_request("fake", rows(1.0)))
    assert len(recorded(tmp_path)) == 1


def test_beyond_the_bound_samples_are_counted_by_model(tmp_path: Path) -> None:
    # One sample always has room, and none beside it: so the thread must be at work on one.
    with sampled(tmp_path, "rows_FP32", sample_max_bytes=1024) as server:
        assert server.server is not None
        tap = server.server.endpoint.observers.tap
        assert tap is not None
        tap._side._held += 1
        server.infer(infer_request("rows_FP32", rows(1.0)))
        tap._side._held -= 1
        text = metrics_text(server.metrics_port)
    assert 'inferd_samples_dropped_total{model="rows_FP32",version="1"} 1.0' in text


@pytest.mark.parametrize(
    ("own", "server", "watched", "wanted", "sampled"),
    [
        (None, 0.0, True, True, False),
        (0.0, 0.5, True, True, False),
        (0.5, 0.0, False, True, False),
        (0.5, 0.0, True, False, False),
        (0.5, 0.0, True, True, True),
        (None, 0.5, True, True, True),
    ],
)
def test_a_model_is_sampled_where_somebody_looks_at_a_share_of_it(
    own: float | None, server: float, watched: bool, wanted: bool, sampled: bool
) -> None:
    handle = SimpleNamespace(config=ModelConfig(sample_share=own), version=1, name="m")
    tap = Tap([lambda _: None], 1024, FakeClock()) if watched else None
    clocks = FakeClock(), FakeClock()
    sampling = Sampling(tap, server, RegionTable(), *clocks, random.getrandbits, lambda _: wanted)
    found = sampling.of(cast(Handle, handle), Admitted((), 1), None, [])
    assert (found is not None) is sampled


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        ({"INPUT9": "drop"}, "there is no tensor 'INPUT9'; there are INPUT0, INPUT1, OUTPUT0"),
        ({"INPUT0": "hash"}, "'INPUT0' is FP32, and only BYTES can be hashed"),
    ],
)
def test_a_mask_that_hides_nothing_refuses_the_model(
    tmp_path: Path, masks: dict[str, str], said: str
) -> None:
    yaml = {"m": f"recording: {{masks: {{{', '.join(f'{k}: {v}' for k, v in masks.items())}}}}}\n"}
    folder = models.repository(tmp_path, {"m": models.identity("FP32", "BYTES")}, yaml)
    with running(folder) as server:
        (state,) = server.stub.RepositoryIndex(pb.RepositoryIndexRequest()).models
    assert said in state.reason


def test_masks_that_fit_are_taken() -> None:
    tensor = SimpleNamespace(name="a", dtype=np.dtype(np.object_))
    check_masks({"a": "hash"}, cast("Handle", SimpleNamespace(inputs=[tensor], outputs=[])))  # type: ignore[arg-type]
    with pytest.raises(EngineError):
        check_masks({"b": "drop"}, cast("Handle", SimpleNamespace(inputs=[tensor], outputs=[])))  # type: ignore[arg-type]
