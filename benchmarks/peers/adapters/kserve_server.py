"""KServe's gRPC server and data plane, without its REST server: SPEC PORT FOLDER.

Its own start would listen on all interfaces and lacks ModelConfig; everything that a request
passes is the SDK's.
"""

import asyncio
import json
import sys

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

    def load(self):
        """Open the model."""
        self.session = InferenceSession(SPEC["path"], providers=["CPUExecutionProvider"])
        self.ready = True
        return self.ready

    async def get_input_types(self):
        """Return the metadata of the input."""
        return [{"name": SPEC["input"], "datatype": "FP32", "shape": [-1, *SPEC["input_shape"]]}]

    async def get_output_types(self):
        """Return the metadata of the output."""
        return [{"name": SPEC["output"], "datatype": "FP32", "shape": [-1, *SPEC["output_shape"]]}]

    def predict(self, payload: InferRequest, headers=None, response_headers=None):
        """Run one request."""
        found = self.session.run(None, {SPEC["input"]: payload.inputs[0].as_numpy()})[0]
        output = InferOutput(SPEC["output"], list(found.shape), "FP32")
        output.set_data_from_numpy(np.ascontiguousarray(found), binary_data=True)
        return InferResponse(payload.id, SPEC["name"], [output])


def loopback_server(*arguments, **options):
    """Make the server that KServe asks for, on loopback and with ModelConfig."""
    server = make_server(*arguments, **options)
    bind = server.add_insecure_port
    server.add_insecure_port = lambda _address: bind(f"127.0.0.1:{PORT}")
    server.add_generic_rpc_handlers((ModelConfigHandler(SPEC["name"], SPEC["max_batch"]),))
    return server


async def serve():
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
