"""grpc-js calls the server with the contract read from our .proto files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from .tools import NODE_MODULES, output, require

SCRIPT = Path(__file__).with_name("node") / "client.js"
MANY = 50
UNKNOWN = 7


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest) -> Any:
    """What each call gave, by name."""
    modules = str(require(NODE_MODULES))
    binary = shutil.which("node")
    if binary is None:
        pytest.skip("no node")
    address = request.getfixturevalue("address")
    text = output([binary, str(SCRIPT), address], {**os.environ, "NODE_PATH": modules})
    return json.loads(text)


def test_a_call_is_answered(node: Any) -> None:
    assert node["infer"] == {"code": "OK", "id": "one", "sums": list(range(2, 18))}


def test_an_error_has_its_code_its_reason_and_its_kind(node: Any) -> None:
    refusal = node["refused"]
    assert (refusal["code"], refusal["kind"]) == ("NOT_FOUND", "ModelNotFound")
    assert "model 'absent' is not known" in refusal["details"]


def test_metadata_describes_the_model(node: Any) -> None:
    expected = {"name": "INPUT0", "datatype": "INT32", "shape": [-1, 16]}
    assert node["metadata"] == {"name": "simple", "input": expected}


def test_a_stream_answers_each_request_and_ends_well(node: Any) -> None:
    stream = node["stream"]
    assert stream["code"] == "OK"
    assert stream["sums"] == {str(i): i + 1 for i in range(MANY) if i != UNKNOWN}
    assert list(stream["errors"]) == [str(UNKNOWN)]
