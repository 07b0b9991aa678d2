from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from inferd.oip.v2 import inference_pb2 as pb
from inferd.v1 import server_pb2
from inferd_client import presentation, tables
from inferd_client.cli import main
from inferd_client.errors import InvalidResponse
from inferd_client.results import Result

from tests.fakes.oip_server import OipServer


@pytest.fixture
def digits(server: OipServer) -> OipServer:
    """Return the server with the metadata of a model that it echoes."""
    server.answers["ModelMetadata"] = pb.ModelMetadataResponse(
        name="digits",
        inputs=[
            {"name": "image", "datatype": "FP32", "shape": [-1, 4]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
        ],
    )
    return server


def result_of(**outputs: np.ndarray) -> Result:
    return Result("m", "1", "", {}, outputs)


def test_infer_prints_a_line_for_each_output(
    digits: OipServer, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--input", "image=[[1, 2, 3, 4]]", "--input", 'label=["é"]']
    assert main(["infer", "digits", "--url", digits.address, *flags]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "digits version 1",
        "NAME   DATATYPE  SHAPE   VALUES",
        "image  FP32      [1, 4]  [[1., 2., 3., 4.]]",
        r"label  BYTES     [1]     [b'\xc3\xa9']",
    ]


def test_infer_prints_json_in_full(digits: OipServer, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--input", "image=zeros", "--shape", "image=2,4", "--version", "7", "--json"]
    assert main(["infer", "digits", "--url", digits.address, *flags]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["model_version"] == "7"
    assert printed["outputs"]["image"] == {
        "datatype": "FP32",
        "shape": [2, 4],
        "data": [[0.0] * 4] * 2,
    }


def test_infer_asks_for_the_outputs_named(digits: OipServer) -> None:
    flags = ["--input", "image=random", "--output", "scores"]
    assert main(["infer", "digits", "--url", digits.address, *flags]) == 0
    assert [output.name for output in digits.seen.outputs] == ["scores"]


def test_infer_saves_what_numpy_reads_back(digits: OipServer, tmp_path: Path) -> None:
    saved = tmp_path / "out.npz"
    flags = ["--input", "image=random", "--input", 'label=["a", "bc"]', "--save", str(saved)]
    assert main(["infer", "digits", "--url", digits.address, *flags]) == 0
    with np.load(saved) as archive:
        assert archive["image"].shape == (1, 4)
        assert archive["label"].tolist() == [b"a", b"bc"]


def test_infer_refuses_an_input_that_the_model_lacks(
    digits: OipServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["infer", "digits", "--url", digits.address, "--input", "picture=[1]"]) == 1
    assert "no input 'picture', only image, label" in capsys.readouterr().err


def test_models_shows_which_engine_serves_and_why(
    server: OipServer, capsys: pytest.CaptureFixture[str]
) -> None:
    model = {"name": "digits", "version": "2", "state": "READY", "engine": "ort/CPU"}
    server.answers["Status"] = server_pb2.StatusResponse(
        models=[
            {**model, "engine_reason": "no GPU", "max_batch_size": 32, "batch_reason": "9 runs"}
        ]
    )
    assert main(["models", "--url", server.address]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "NAME    VERSION  STATE  ENGINE   MAX BATCH  REASON  BATCHING",
        "digits  2        READY  ort/CPU  32         no GPU  9 runs",
    ]


def test_models_of_another_server_come_from_its_index(
    server: OipServer, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = {"name": "m", "version": "1", "state": "UNAVAILABLE", "reason": "broken"}
    server.answers["RepositoryIndex"] = pb.RepositoryIndexResponse(models=[entry])
    assert main(["models", "--url", server.address]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == [
        *("m", "1", "UNAVAILABLE", "-", "-", "broken", "-")
    ]
    assert main(["models", "--url", server.address, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [entry]


def test_json_has_words_for_numbers_that_it_lacks() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 1], np.float32)
    shown = presentation.as_json(result_of(y=values, half=values.astype(ml_dtypes.bfloat16)))
    expected = ["NaN", "Infinity", "-Infinity", 1.0]
    assert json.loads(json.dumps(shown))["outputs"]["y"]["data"] == expected
    assert json.loads(json.dumps(shown))["outputs"]["half"]["data"] == expected


def test_long_arrays_are_abbreviated_on_one_line() -> None:
    shown = presentation.abbreviated(np.arange(10000).reshape(100, 100))
    assert "..." in shown
    assert "\n" not in shown


def test_saved_bf16_is_exact_as_float32(tmp_path: Path) -> None:
    path = str(tmp_path / "out.npz")
    presentation.save(result_of(file=np.array([1.5], ml_dtypes.bfloat16)), path)
    with np.load(path) as archive:
        assert archive["file"].dtype == np.float32
        assert archive["file"].tolist() == [1.5]


def test_saving_never_drops_nul_bytes(tmp_path: Path) -> None:
    with pytest.raises(InvalidResponse, match="NUL"):
        presentation.save(result_of(y=np.array([b"a\0"], object)), str(tmp_path / "out.npz"))


def test_table_of_nothing_is_its_headers() -> None:
    assert tables.render(["A", "B"], []) == "A  B"
