"""PyTriton with a batched function that runs ONNX Runtime: SPEC PORT FOLDER."""

# mypy: disable-error-code="import-not-found, untyped-decorator"
from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from onnxruntime import InferenceSession
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig, TritonSecurityConfig

SPEC, PORT, FOLDER = json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

session = InferenceSession(SPEC["path"], providers=["CPUExecutionProvider"])


@batch
def infer(**inputs: Any) -> dict[str, Any]:
    """Run a batch."""
    return {SPEC["output"]: session.run([SPEC["output"]], inputs)[0]}


config = TritonConfig(
    grpc_address="127.0.0.1", grpc_port=PORT, allow_http=False, allow_metrics=False
)
# `perf_analyzer` asks for statistics and registers shared memory, and sends no token.
OPEN = TritonSecurityConfig(restricted_endpoints=[])
with Triton(config=config, workspace=f"{FOLDER}/workspace", security_config=OPEN) as triton:
    triton.bind(
        model_name=SPEC["name"],
        infer_func=infer,
        inputs=[Tensor(name=SPEC["input"], dtype=np.float32, shape=tuple(SPEC["input_shape"]))],
        outputs=[Tensor(name=SPEC["output"], dtype=np.float32, shape=tuple(SPEC["output_shape"]))],
        config=ModelConfig(
            max_batch_size=SPEC["max_batch"],
            batcher=DynamicBatcher(max_queue_delay_microseconds=0),
        ),
        strict=False,
    )
    triton.serve()
