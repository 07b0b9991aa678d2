"""The one method that `perf_analyzer` asks for and that KServe and MLServer lack."""

from __future__ import annotations

from typing import Any

import grpc

METHOD = "/inference.GRPCInferenceService/ModelConfig"


class ModelConfigHandler(grpc.GenericRpcHandler):
    """Answers ModelConfig with a name and the largest batch."""

    def __init__(self, name: str, max_batch: int) -> None:
        self.answer = encode(name.encode(), max_batch)

    def service(
        self, call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the handler of ModelConfig, and none for any other method."""
        if call_details.method != METHOD:
            return None

        async def handle(_request: bytes, _context: Any) -> bytes:
            return self.answer

        return grpc.unary_unary_rpc_method_handler(handle)


def encode(name: bytes, max_batch: int) -> bytes:
    """Return the bytes of ModelConfigResponse(config(name=1, max_batch_size=4)), both below 128."""
    config = bytes((0x0A, len(name))) + name + bytes((0x20, max_batch))
    return bytes((0x0A, len(config))) + config
