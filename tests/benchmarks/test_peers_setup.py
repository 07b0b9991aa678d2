"""What is served, by whom, and under which loads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from inferd.oip.v2 import model_config_pb2
from onnxruntime import InferenceSession

from benchmarks.peers import triton
from benchmarks.peers.__main__ import chosen, main
from benchmarks.peers.adapters.model_config import encode
from benchmarks.peers.contenders import CONTENDERS
from benchmarks.peers.loads import LOADS
from benchmarks.peers.measuring import fits
from benchmarks.peers.models import DIGITS, MEAN, MODELS, build_mean, example, write


def test_every_load_is_on_a_model_that_is_written() -> None:
    assert {load.model for load in LOADS.values()} == set(MODELS)


def test_the_mean_model_answers_the_mean_of_each_channel() -> None:
    session = InferenceSession(build_mean().SerializeToString())
    row = example(MEAN)
    assert row.nbytes == 602_112
    found = np.asarray(session.run([MEAN.output], {MEAN.input: row})[0])
    np.testing.assert_allclose(found, row.mean(axis=(2, 3)), rtol=1e-4)


def test_each_model_gets_a_repository_of_its_own(tmp_path: Path) -> None:
    roots = write(tmp_path, ["digits", "mean"])
    assert [folder.name for folder in roots["digits"].iterdir()] == ["digits"]
    assert DIGITS.path(roots["digits"]).is_file()
    assert MEAN.path(roots["mean"]).is_file()
    assert "32" in (roots["mean"] / "mean/model.yaml").read_text()


def test_an_adapter_is_told_all_about_its_model(tmp_path: Path) -> None:
    spec = json.loads(DIGITS.spec(tmp_path))
    assert spec["path"] == str(tmp_path / "digits/1/model.onnx")
    assert (spec["input_shape"], spec["output_shape"], spec["max_batch"]) == ([8, 8], [10], 32)


def test_triton_gets_two_instances_and_the_queue_delay_in_its_configuration(tmp_path: Path) -> None:
    repository = triton.write(tmp_path, DIGITS, tmp_path / "root", 1000)
    config = (repository / "digits/config.pbtxt").read_text()
    assert "count: 2" in config
    assert "max_queue_delay_microseconds: 1000" in config
    assert str(tmp_path / "root/digits/1/model.onnx") in config
    assert (repository / "digits/1/model.py").is_file()


def test_the_bytes_of_a_model_config_are_what_the_generated_class_reads() -> None:
    answer = model_config_pb2.ModelConfig.FromString(encode(b"digits", 32)[2:])
    assert (answer.name, answer.max_batch_size) == ("digits", 32)


def test_servers_without_streams_or_shared_memory_are_spared_those_loads() -> None:
    kserve, inferd = CONTENDERS["kserve"], CONTENDERS["inferd"]
    assert [name for name, load in LOADS.items() if not fits(kserve, load)] == [
        "digits-stream-32",
        "mean-shm-32",
    ]
    assert all(fits(inferd, load) for load in LOADS.values())


def test_a_smaller_run_is_chosen_by_names() -> None:
    assert chosen({"a": 1, "b": 2, "c": 3}, "c,a") == [3, 1]
    assert chosen({"a": 1, "b": 2}, None) == [1, 2]


@pytest.mark.parametrize("flag", ["--servers", "--loads"])
def test_an_unknown_name_is_refused_with_the_known_ones(flag: str) -> None:
    with pytest.raises(SystemExit, match=r"nobody: not one of .+, "):
        main([flag, "nobody"])
