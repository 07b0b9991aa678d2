"""A model of Triton's Python back end that runs ONNX Runtime with one thread."""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    """What the back end looks for in model.py."""

    def initialize(self, arguments: Mapping[str, str]) -> None:
        """Open the model that the configuration names."""
        config = json.loads(arguments["model_config"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            config["parameters"]["path"]["string_value"],
            options,
            providers=["CPUExecutionProvider"],
        )
        self.input = config["input"][0]["name"]
        self.output = config["output"][0]["name"]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Run all requests as one batch."""
        rows = [triton.get_input_tensor_by_name(one, self.input).as_numpy() for one in requests]
        batch = np.concatenate(rows) if len(rows) > 1 else rows[0]
        found = self.session.run([self.output], {self.input: batch})[0]
        ends = np.cumsum([len(some) for some in rows])[:-1]
        return [
            triton.InferenceResponse([triton.Tensor(self.output, part)])
            for part in np.split(found, ends)
        ]
