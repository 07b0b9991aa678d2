"""KServe's gRPC server and data plane, without its REST server: SPEC PORT FOLDER.

Its own start would listen on all interfaces and lacks ModelConfig; everything that a request
passes is the SDK's.
"""

# mypy: disable-error-code="import-not-found, misc, method-assign"
from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import grpc.aio
import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model
from kserve.model_repository import ModelRepository
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc.server import GRPCServer
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from model_config import ModelConfigHandler
from onnxruntime import InferenceSession

SPEC, PORT = json.loads(sys.argv[1]), int(sys.argv[2])
MESSAGE_BYTES = 128 << 20
make_server = grpc.aio.server


class OnnxModel(Model):
    """Runs ONNX Runtime on each request."""

    def load(self) -> bool:
        """Open the model."""
        self.session = InferenceSession(SPEC["path"], providers=["CPUExecutionProvider"])
        self.ready = True
        return self.ready

    async def get_input_types(self) -> list[dict[str, Any]]:
        """Return the metadata of the input."""
        return [{"name": SPEC["input"], "datatype": "FP32", "shape": [-1, *SPEC["input_shape"]]}]

    async def get_output_types(self) -> list[dict[str, Any]]:
        """Return the metadata of the output."""
        return [{"name": SPEC["output"], "datatype": "FP32", "shape": [-1, *SPEC["output_shape"]]}]

    def predict(self, payload: InferRequest, *_headers: Any, **_more: Any) -> InferResponse:
        """Run one request."""
        found = self.session.run(None, {SPEC["input"]: payload.inputs[0].as_numpy()})[0]
        output = InferOutput(SPEC["output"], list(found.shape), "FP32")
        output.set_data_from_numpy(np.ascontiguousarray(found), binary_data=True)
        return InferResponse(payload.id, SPEC["name"], [output])


def loopback_server(*arguments: Any, **options: Any) -> grpc.aio.Server:
    """Make the server that KServe asks for, on loopback and with ModelConfig."""
    server = make_server(*arguments, **options)
    bind = server.add_insecure_port
    server.add_insecure_port = lambda address: bind(address.replace("[::]", "127.0.0.1"))
    server.add_generic_rpc_handlers((ModelConfigHandler(SPEC["name"], SPEC["max_batch"]),))
    return server


async def serve() -> None:
    """Serve until a signal ends the process."""
    repository = ModelRepository()
    model = OnnxModel(SPEC["name"])
    model.load()
    repository.update(model)
    plane = DataPlane(model_registry=repository)
    limits = dict.fromkeys(
        ("grpc_max_send_message_length", "grpc_max_receive_message_length"), MESSAGE_BYTES
    )
    server = GRPCServer(PORT, plane, ModelRepositoryExtension(repository), limits)
    await server.start(max_workers=4)


grpc.aio.server = loopback_server
asyncio.run(serve())
