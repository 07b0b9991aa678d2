"""The models that the suites of Triton's expectations ask, of every datatype and shape."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto, NodeProto, TensorProto, helper

from tests import models

from .triton.suites.combinations import COMBINATIONS, QUICK, model_name
from .triton.suites.variable_shapes import SHAPES, variable_name
from .triton.suites.zero_shapes import zero_models

DATATYPES = dict(
    zip(
        "ubsilhfo",
        ["UINT8", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "BYTES"],
        strict=True,
    )
)
DELAY_MS = 3000


def sum_and_difference(combination: str, dims: models.Dims) -> ModelProto:
    """OUTPUT0 and OUTPUT1 are the sum and the difference of the inputs, each of its datatype."""
    given, *told = (DATATYPES[letter] for letter in combination)
    nodes = [cast(f"INPUT{index}", f"whole{index}", TensorProto.INT32) for index in (0, 1)]
    for name, operator, datatype in zip(("OUTPUT0", "OUTPUT1"), ("Add", "Sub"), told, strict=True):
        nodes.append(helper.make_node(operator, ["whole0", "whole1"], [f"{name}_whole"]))
        nodes.append(cast(f"{name}_whole", name, models.ELEMENT_TYPES[datatype]))
    return models.model(
        nodes,
        [models.tensor(f"INPUT{index}", given, dims) for index in (0, 1)],
        [models.tensor(f"OUTPUT{index}", told[index], dims) for index in (0, 1)],
    )


def cast(source: str, target: str, element_type: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], to=element_type)


def free(rank: int) -> models.Dims:
    """Return a batch dimension and so many free ones, which have no names: they may differ."""
    return ("batch", *[None] * rank)


def suite_models(root: Path, *, quick: bool) -> Path:
    """Lay out all models of the suites; quick: only those that the quick part asks."""
    every: dict[str, ModelProto | dict[int, ModelProto]] = {}
    yaml: dict[str, str] = {}
    chosen = {*QUICK, "iii"} if quick else COMBINATIONS
    for combination in chosen:
        for batched in (True, False):
            name = model_name(combination, batched=batched)
            dims: models.Dims = ("batch", 16) if batched else (16,)
            every[name] = sum_and_difference(combination, dims)
            yaml[name] = "" if batched else "max_batch_size: 0"
    for combination, shape in SHAPES.items():
        every[variable_name(combination)] = sum_and_difference(combination, free(len(shape)))
    for name, datatype, inputs, rank, batched in zero_models():
        if batched or not quick:
            dims = free(rank) if batched else free(rank)[1:]
            every[name] = models.identity(*[datatype] * inputs, dims=dims)
            yaml[name] = "" if batched else "max_batch_size: 0"
    versions = {number: models.scale(float(number + 1)) for number in (1, 2, 3)}
    every |= dict.fromkeys(("latest", "all", "specific_1", "specific_1_3", "latest_2"), versions)
    yaml |= {
        "all": "versions: all",
        "specific_1": "versions: [1]",
        "specific_1_3": "versions: [1, 3]",
        "latest_2": "versions: latest:2",
    }
    every |= {name: models.scale(2.0) for name in ("scale", "cached", "counted_unloaded")}
    every["texts"] = models.identity("BYTES", dims=("batch", 4))
    every["counted"] = {1: models.scale(2.0), 2: models.scale(3.0)}
    yaml |= {"cached": "response_cache: {}", "counted": "versions: all"}
    waiting(every, yaml)
    lifecycle(root, every)
    return models.repository(root, every, yaml)


def waiting(every: dict, yaml: dict[str, str]) -> None:
    """Add the models of the batcher and of sequences."""
    adding = sum_and_difference("fff", free(1))
    every |= dict.fromkeys(("batcher_preferred", "batcher_best", "batcher_alone"), adding)
    every["delayed"] = sum_and_difference("iii", ("batch", 16))
    delay = f"max_batch_size: 8, max_queue_delay_ms: {DELAY_MS}"
    yaml |= {
        "batcher_preferred": f"{{{delay}, preferred_batch_size: [2, 6]}}",
        "batcher_best": f"{{{delay}, preferred_batch_size: [4]}}",
        "batcher_alone": "max_batch_size: 8",
        "delayed": "max_queue_delay_ms: 1000\npreferred_batch_size: 32",
    }
    names = ("summing", "summing_shared", "summing_few", "summing_silent")
    every |= dict.fromkeys(names, models.summing("INT32", ("batch", 1)))
    yaml["summing"] = models.SUMMING
    yaml["summing_shared"] = models.SUMMING + "max_queue_delay_ms: 1000\npreferred_batch_size: 4\n"
    yaml["summing_few"] = models.SUMMING.replace("64", "4")
    yaml["summing_silent"] = models.SUMMING + "  idle_s: 1\n"


def lifecycle(root: Path, every: dict) -> None:
    """Add the models of the lifecycle suite, and folders that hold none."""
    every["life"] = {1: models.scale(2.0), 3: models.scale(4.0)}
    every |= {name: models.scale(2.0) for name in ("life_other", "life_zero", "life_text")}
    models.save(models.scale(9.0), root / "life_zero/02/model.onnx")
    models.save(models.scale(9.0), root / "life_text/abc/model.onnx")
    (root / "life_empty").mkdir(parents=True)
    damaged = root / "life_damaged/1/model.onnx"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"no model")
