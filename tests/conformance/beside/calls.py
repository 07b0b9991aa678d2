"""One inference of the model `animals` by each package; none is imported before it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np

ROW = np.array([[1, 2, 3, 4]], np.float32)
MODULES = {
    "inferd": "inferd_client",
    "tritonclient": "tritonclient.grpc",
    "kserve": "kserve.protocol.grpc.grpc_predict_v2_pb2",
}


def ours(address: str) -> Any:
    from inferd_client import Client

    with Client(address) as client:
        client.status()
        return client.infer("animals", INPUT0=ROW)["OUTPUT0"].tolist()


def tritons(address: str) -> Any:
    from tritonclient import grpc

    with grpc.InferenceServerClient(address) as client:
        tensor = grpc.InferInput("INPUT0", list(ROW.shape), "FP32").set_data_from_numpy(ROW)
        return client.infer("animals", [tensor]).as_numpy("OUTPUT0").tolist()


def kserves(address: str) -> Any:
    from kserve import InferenceGRPCClient, InferInput, InferRequest

    async def call() -> Any:
        tensor = InferInput("INPUT0", list(ROW.shape), "FP32")
        tensor.set_data_from_numpy(ROW, binary_data=True)
        client = InferenceGRPCClient(address)
        try:
            answer = await client.infer(InferRequest("animals", [tensor]))
        finally:
            await client.close()
        return answer.outputs[0].as_numpy().tolist()

    return asyncio.run(call())


CALLS: dict[str, Callable[[str], Any]] = {
    "inferd": ours,
    "tritonclient": tritons,
    "kserve": kserves,
}
