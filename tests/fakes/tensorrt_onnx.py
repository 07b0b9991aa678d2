"""A double for TensorRT that builds plans of ONNX files and computes them with ONNX Runtime.

What the module `tensorrt` is in processes that run on the stand-in for the driver: a plan is the
model with its profiles, so that it can be built in one process and run in another.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
from inferd_engines.engine import Array, Signature
from inferd_engines.onnx_signature import read_signature
from inferd_engines.tensorrt.profiles import Profile, Range
from inferd_engines.tensorrt.tensors import DTYPES

from tests.device.standin import Standin
from tests.fakes.tensorrt import DataType, FakeModel, FakeTensorRT


class IProgressMonitor:
    """The base of progress monitors."""


class Network:
    """A model that was read."""

    def __init__(self) -> None:
        self.content = b""
        self.signature = Signature((), ())

    @property
    def num_inputs(self) -> int:
        """How many there are."""
        return len(self.signature.inputs)

    @property
    def num_outputs(self) -> int:
        """How many there are."""
        return len(self.signature.outputs)

    def get_input(self, index: int) -> Any:
        """Return one."""
        return tensor_of(self.signature.inputs[index])

    def get_output(self, index: int) -> Any:
        """Return one."""
        return tensor_of(self.signature.outputs[index])


class OptimizationProfile:
    """Shapes by name."""

    def __init__(self) -> None:
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, name: str, least: Any, most_often: Any, most: Any) -> None:
        """Take a range."""
        self.shapes[name] = [list(least), list(most_often), list(most)]


class BuilderConfig:
    """Profiles of one build."""

    def __init__(self) -> None:
        self.progress_monitor: Any = None
        self.profiles: list[OptimizationProfile] = []

    def add_optimization_profile(self, profile: OptimizationProfile) -> int:
        """Take a profile."""
        self.profiles.append(profile)
        return len(self.profiles) - 1


class Plans(dict[bytes, FakeModel]):
    """Reads any plan that was built by `build`."""

    def get(self, plan: bytes, default: Any = None) -> Any:  # type: ignore[override]
        """Return what a plan does; the default if it is none."""
        try:
            found = json.loads(plan)
        except ValueError:
            return default
        return model_of(found)


class OnnxTensorRT(FakeTensorRT):
    """The module `tensorrt`."""

    BuilderFlag = Enum("BuilderFlag", ["VERSION_COMPATIBLE"])  # type: ignore[misc]
    IProgressMonitor = IProgressMonitor

    def __init__(self) -> None:
        super().__init__(Standin(afresh=False), Plans())

    def Builder(self, logger: Any) -> Any:  # noqa: N802 TensorRT calls it that
        """Make a builder."""
        del logger
        return SimpleNamespace(
            create_network=lambda _flags: Network(),
            create_builder_config=BuilderConfig,
            create_optimization_profile=OptimizationProfile,
            build_serialized_network=build,
        )

    def OnnxParser(self, network: Network, logger: Any) -> Any:  # noqa: N802 as above
        """Make a parser."""
        del logger

        def parse(path: str) -> bool:
            network.content = Path(path).read_bytes()
            network.signature, _ = read_signature(session(network.content))
            return True

        return SimpleNamespace(parse_from_file=parse)


def build(network: Network, config: BuilderConfig) -> bytes:
    """Return a plan."""
    profiles = [profile.shapes for profile in config.profiles]
    content = base64.b64encode(network.content).decode()
    return json.dumps({"model": content, "profiles": profiles}).encode()


def model_of(plan: Mapping[str, Any]) -> FakeModel:
    """Return what a plan does."""
    runs = session(base64.b64decode(plan["model"]))
    signature, _ = read_signature(runs)
    names = [tensor.name for tensor in signature.outputs]

    def compute(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return dict(zip(names, runs.run(names, dict(inputs)), strict=True))

    return FakeModel(signature, compute, [profile_of(one) for one in plan["profiles"]])


def profile_of(shapes: Mapping[str, Sequence[Sequence[int]]]) -> Profile:
    """Return a profile with its ranges."""
    ranges = {name: Range(*(tuple(end) for end in ends)) for name, ends in shapes.items()}
    rows = next(iter(ranges.values())).most[0] if ranges else 0
    return Profile(rows, ranges)


def session(content: bytes) -> onnxruntime.InferenceSession:
    """Open a model on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])


def tensor_of(tensor: Any) -> Any:
    """Return a tensor as TensorRT has it."""
    kind = next(name for name, dtype in DTYPES.items() if dtype == tensor.dtype)
    shape = tuple(-1 if size is None else size for size in tensor.shape)
    return SimpleNamespace(name=tensor.name, dtype=DataType[kind], shape=shape)
