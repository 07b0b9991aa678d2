"""MLServer with a model that runs ONNX Runtime in its own process: SPEC PORT FOLDER."""

# mypy: disable-error-code="import-not-found, misc"
from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

import grpc.aio
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor
from model_config import ModelConfigHandler
from onnxruntime import InferenceSession

SPEC, PORT = json.loads(sys.argv[1]), int(sys.argv[2])
HTTP_PORT = 0
make_server = grpc.aio.server


class OnnxModel(MLModel):
    """Runs ONNX Runtime on each request."""

    async def load(self) -> bool:
        """Open the model."""
        self.session = InferenceSession(SPEC["path"], providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run one request."""
        rows = NumpyCodec.decode_input(payload.inputs[0])
        found = self.session.run(None, {SPEC["input"]: rows})[0]
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            outputs=[NumpyCodec.encode_output(SPEC["output"], found)],
        )


def server_with_model_config(*arguments: Any, **options: Any) -> grpc.aio.Server:
    """Make the server that MLServer asks for, with ModelConfig."""
    server = make_server(*arguments, **options)
    server.add_generic_rpc_handlers((ModelConfigHandler(SPEC["name"], SPEC["max_batch"]),))
    return server


def tensor(name: str, shape: Sequence[int]) -> MetadataTensor:
    """Return the metadata of a tensor."""
    return MetadataTensor(name=name, datatype="FP32", shape=[-1, *shape])


async def serve() -> None:
    """Serve until a signal ends the process."""
    server = MLServer(
        Settings(
            host="127.0.0.1",
            grpc_port=PORT,
            http_port=HTTP_PORT,
            metrics_endpoint=None,
            parallel_workers=0,
            debug=False,
        )
    )
    settings = ModelSettings(
        name=SPEC["name"],
        implementation=OnnxModel,
        inputs=[tensor(SPEC["input"], SPEC["input_shape"])],
        outputs=[tensor(SPEC["output"], SPEC["output_shape"])],
    )
    await server.start([settings])


grpc.aio.server = server_with_model_config
asyncio.run(serve())
