"""Whether a server answers what ONNX Runtime answers."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np
import numpy.typing as npt
from inferd.oip.v2 import inference_pb2 as pb
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from onnxruntime import InferenceSession

from benchmarks.peers.models import Model, example

Array = npt.NDArray[np.float32]
_TIMEOUT_S = 30


def check(channel: grpc.Channel, model: Model, path: Path, streams: bool) -> None:
    """Compare one answer, and one in a stream, with ONNX Runtime's.

    Raises:
        RuntimeError: an answer is wrong.
        grpc.RpcError: a call failed.
    """
    row = example(model)
    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected: Array = np.asarray(session.run([model.output], {model.input: row})[0])
    stub = GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
    asked = request(model, row)
    answers = [stub.ModelInfer(asked, timeout=_TIMEOUT_S)]
    if streams:
        first = next(iter(stub.ModelStreamInfer(iter([asked]), timeout=_TIMEOUT_S)))
        if first.error_message:
            raise RuntimeError(f"{model.name}, in a stream: {first.error_message}")
        answers.append(first.infer_response)
    for answer in answers:
        compare(answer, model, expected)


def request(model: Model, row: Array) -> pb.ModelInferRequest:
    """Return a request of one row."""
    tensor = pb.ModelInferRequest.InferInputTensor(
        name=model.input, datatype="FP32", shape=row.shape
    )
    return pb.ModelInferRequest(
        model_name=model.name, id="7", inputs=[tensor], raw_input_contents=[row.tobytes()]
    )


def compare(answer: pb.ModelInferResponse, model: Model, expected: Array) -> None:
    """Raise RuntimeError unless the answer is the expected one, and carries the request's id."""
    tensor = answer.outputs[0]
    if answer.raw_output_contents:
        values = np.frombuffer(answer.raw_output_contents[0], dtype=np.float32)
    else:
        values = np.asarray(tensor.contents.fp32_contents, dtype=np.float32)
    if (tensor.name, list(tensor.shape), answer.id) != (model.output, list(expected.shape), "7"):
        raise RuntimeError(f"{model.name}: {tensor.name} {tensor.shape}, id {answer.id!r}")
    if not np.allclose(values, expected.ravel(), rtol=1e-3, atol=1e-6):
        raise RuntimeError(f"{model.name}: a wrong answer, {values} instead of {expected}")
