"""grpcurl and buf, which know nothing of the server but what it tells by reflection."""

from __future__ import annotations

import base64
import json
import subprocess
from typing import Any

import numpy as np
import pytest

from .tools import BUF, GRPCURL, TIMEOUT, output, require

SERVICES = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "inference.GRPCInferenceService",
    "inferd.v1.FeedbackService",
    "inferd.v1.ReleaseService",
    "inferd.v1.ServerService",
    "xds.service.orca.v3.OpenRcaService",
}
INFER = "inference.GRPCInferenceService/ModelInfer"
METADATA = "inference.GRPCInferenceService/ServerMetadata"


def grpcurl(*arguments: str) -> str:
    return output([str(require(GRPCURL)), "-plaintext", *arguments])


def buf(*arguments: str) -> str:
    flags = ["curl", "--protocol", "grpc", "--http2-prior-knowledge"]
    return output([str(require(BUF)), *flags, *arguments])


def infer_request() -> dict[str, Any]:
    row = base64.b64encode(np.ones((1, 16), dtype="<i4").tobytes()).decode()
    names = ("INPUT0", "INPUT1")
    return {
        "model_name": "simple",
        "id": "one",
        "inputs": [{"name": name, "datatype": "INT32", "shape": [1, 16]} for name in names],
        "raw_input_contents": [row, row],
    }


def check_answer(answer: dict[str, Any], outputs: str) -> None:
    """Every sum of two ones is 2; `outputs` is how the tool writes raw_output_contents."""
    sums = np.frombuffer(base64.b64decode(answer[outputs][0]), dtype="<i4")
    assert answer["id"] == "one"
    assert sums.tolist() == [2] * 16


def test_grpcurl_lists_the_services(address: str) -> None:
    assert set(grpcurl(address, "list").split()) == SERVICES


def test_grpcurl_describes_a_method(address: str) -> None:
    text = grpcurl(address, "describe", "inference.GRPCInferenceService.ModelStreamInfer")
    assert "stream .inference.ModelInferRequest" in text
    assert "stream .inference.ModelStreamInferResponse" in text


def test_grpcurl_describes_a_message_of_an_imported_file(address: str) -> None:
    text = grpcurl(address, "describe", "inference.ModelConfig")
    assert "int32 max_batch_size = 4;" in text


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_grpcurl_describes_reflection_itself(address: str, version: str) -> None:
    text = grpcurl(address, "describe", f"grpc.reflection.{version}.ServerReflection")
    assert "rpc ServerReflectionInfo" in text


def test_grpcurl_is_told_that_there_is_no_such_symbol(address: str) -> None:
    command = [str(require(GRPCURL)), "-plaintext", address, "describe"]
    command.append("inference.GRPCInferenceService.Absent")
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode != 0
    assert "Symbol not found" in done.stderr


def test_grpcurl_calls_by_reflection(address: str) -> None:
    metadata = json.loads(grpcurl(address, METADATA))
    assert metadata["name"] == "inferd"


def test_grpcurl_infers_by_reflection(address: str) -> None:
    answer = json.loads(grpcurl("-d", json.dumps(infer_request()), address, INFER))
    check_answer(answer, "raw_output_contents")


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService", "simple", "liveness"])
def test_grpcurl_checks_the_health_of_a_service(address: str, service: str) -> None:
    asked = json.dumps({"service": service})
    answer = grpcurl("-d", asked, address, "grpc.health.v1.Health/Check")
    assert json.loads(answer) == {"status": "SERVING"}


def test_buf_lists_every_method(address: str) -> None:
    methods = buf("--list-methods", f"http://{address}").split()
    assert INFER in methods
    assert {method.split("/")[0] for method in methods} == SERVICES


@pytest.mark.parametrize("version", ["grpc-v1", "grpc-v1alpha"])
def test_buf_infers_by_either_version_of_reflection(address: str, version: str) -> None:
    flags = ("--reflect-protocol", version, "--data", json.dumps(infer_request()))
    check_answer(json.loads(buf(*flags, f"http://{address}/{INFER}")), "rawOutputContents")
