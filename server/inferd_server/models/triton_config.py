"""A config.pbtxt as settings of a model, those of model.yaml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferd.oip.v2 import model_config_pb2 as triton
from inferd.tensors import datatype_of
from inferd_engines.engine import EngineError, Signature, Tensor
from inferd_engines.onnx_entries import ENTRIES

from inferd_server.errors import SettingsError
from inferd_server.models.pbtxt import PBTXT_FILE, check_served, passed_over, read_pbtxt
from inferd_server.models.reshaping import Reshape, fits, reshape_problem
from inferd_server.sequences.controls import ControlKind

ARENA = "enable_mem_arena"
"""A parameter of Triton's back end for ONNX Runtime, which is an entry of ours."""
CONTROLS: Mapping[int, ControlKind] = {
    triton.ModelSequenceBatching.Control.CONTROL_SEQUENCE_START: "start",
    triton.ModelSequenceBatching.Control.CONTROL_SEQUENCE_READY: "ready",
    triton.ModelSequenceBatching.Control.CONTROL_SEQUENCE_END: "end",
    triton.ModelSequenceBatching.Control.CONTROL_SEQUENCE_CORRID: "correlation_id",
}


@dataclass(frozen=True, slots=True)
class DeclaredTensor:
    """An input or output as a configuration declares it."""

    role: str
    """input or output."""
    name: str
    datatype: str
    """The protocol's; "" where none is declared."""
    dims: tuple[int, ...]
    """Behind the batch; -1 is any."""
    optional: bool = False
    reshape: Reshape | None = None
    """Where the model has it in another shape."""


@dataclass(frozen=True, slots=True)
class TritonModel:
    """A model as its config.pbtxt describes it."""

    settings: Mapping[str, Any]
    """By the names of model.yaml."""
    declared: tuple[DeclaredTensor, ...] = ()
    file_name: str = ""
    """Of the model in a version's folder; "": the usual one."""
    without_effect: tuple[str, ...] = ()
    """Fields that say what is not done here, and changes no answer."""


def read_triton(folder: Path) -> TritonModel | None:
    """Read the config.pbtxt of a model's folder; None if there is none.

    Raises:
        SettingsError: it cannot be read, is for another back end, or would change answers.
    """
    path = folder / PBTXT_FILE
    # A link that leads nowhere is a mistake, not a file that is not there.
    if not path.exists() and not path.is_symlink():
        return None
    found, named = read_pbtxt(path)
    check_served(found, path, folder.name)
    settings: dict[str, Any] = {}
    if named or found.input:
        settings["max_batch_size"] = found.max_batch_size
    settings |= _scheduling(found)
    settings |= _instances(found)
    settings |= _versions(found)
    settings |= _outputs(found, folder)
    settings |= _rest(found)
    options = _engine_options(found)
    if options:
        settings["engine_options"] = {entry: value for _, entry, value in options}
    return TritonModel(
        settings,
        _declared(found, path),
        _file_name(found, path),
        passed_over(found, frozenset(key for key, _, _ in options)),
    )


def _scheduling(found: triton.ModelConfig) -> dict[str, Any]:
    if found.WhichOneof("scheduling_choice") == "sequence_batching":
        return _sequences(found.sequence_batching)
    batching = found.dynamic_batching
    settings = _delays(batching.preferred_batch_size, batching.max_queue_delay_microseconds)
    if batching.priority_levels:
        settings["priority_levels"] = batching.priority_levels
    if batching.default_priority_level:
        settings["default_priority"] = batching.default_priority_level
    return settings | _queue(batching, max(1, found.max_batch_size))


def _queue(batching: triton.ModelDynamicBatching, running: int) -> dict[str, Any]:
    """Return the bounds and policies of queues.

    Triton's bounds are of requests that wait, of any size; ours of rows that wait or run.
    """
    settings: dict[str, Any] = {}
    by_priority = batching.priority_queue_policy
    if batching.HasField("default_queue_policy"):
        settings["queue_policy"] = _policy(batching.default_queue_policy)
    if most := batching.default_queue_policy.max_queue_size:
        settings["max_queue_rows"] = most + running
    if by_priority:
        settings["priority_queue_policy"] = {n: _policy(by_priority[n]) for n in by_priority}
    bounded = [level for level in by_priority if by_priority[level].max_queue_size]
    if bounded:
        settings["priority_queue_rows"] = {
            level: by_priority[level].max_queue_size + running for level in bounded
        }
    return settings


def _policy(policy: triton.ModelQueuePolicy) -> dict[str, Any]:
    """Return a policy, of which each field that is left out is Triton's default and not ours."""
    delays = policy.timeout_action == triton.ModelQueuePolicy.DELAY
    told: dict[str, Any] = {
        "timeout_action": "delay" if delays else "refuse",
        "allow_timeout_override": policy.allow_timeout_override,
    }
    if policy.default_timeout_microseconds:
        told["default_timeout_ms"] = policy.default_timeout_microseconds / 1000
    return told


def _delays(preferred: Sequence[int], microseconds: int) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if preferred:
        settings["preferred_batch_size"] = list(preferred)
    if microseconds:
        settings["max_queue_delay_ms"] = microseconds / 1000
    return settings


def _sequences(asked: triton.ModelSequenceBatching) -> dict[str, Any]:
    sequence: dict[str, Any] = {
        "states": [{"input": one.input_name, "output": one.output_name} for one in asked.state],
        "controls": [
            {"input": one.name, **_control(control)}
            for one in asked.control_input
            for control in one.control
        ],
    }
    if asked.max_sequence_idle_microseconds:
        sequence["idle_s"] = asked.max_sequence_idle_microseconds / 1e6
    oldest = asked.oldest
    if oldest.max_candidate_sequences:
        sequence["max_sequences"] = oldest.max_candidate_sequences
    delays = _delays(oldest.preferred_batch_size, oldest.max_queue_delay_microseconds)
    return {"sequence": sequence, **delays}


def _control(control: triton.ModelSequenceBatching.Control) -> dict[str, Any]:
    values = control.int32_false_true or control.fp32_false_true or control.bool_false_true
    told: dict[str, Any] = {"kind": CONTROLS[control.kind]}
    if values:
        told["false_true"] = [float(value) for value in values]
    return told


def _instances(found: triton.ModelConfig) -> dict[str, Any]:
    """Return the number of instances, and the GPUs that have as many each.

    Where GPUs are to have different numbers, each has the largest of them.
    """
    groups = [group for group in found.instance_group if not group.passive]
    if not groups:
        return {}
    gpus = sorted({gpu for group in groups for gpu in gpus_of(group)})
    if not gpus:
        return {"instances": sum(max(1, group.count) for group in groups)}
    counts = [
        sum(max(1, group.count) for group in groups if gpu in (gpus_of(group) or gpus))
        for gpu in gpus
    ]
    if found.HasField("sequence_batching"):
        # The steps of a sequence are where its state is.
        return {"instances": counts[0], "gpus": gpus[:1]}
    return {"instances": max(counts), "gpus": gpus}


def gpus_of(group: triton.ModelInstanceGroup) -> Sequence[int]:
    """Return the GPUs that a group names; none of a group for the processor."""
    return () if group.kind == triton.ModelInstanceGroup.KIND_CPU else tuple(group.gpus)


def _versions(found: triton.ModelConfig) -> dict[str, Any]:
    policy = found.version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return {"versions": "all"}
    if choice == "specific":
        return {"versions": [int(version) for version in policy.specific.versions]}
    newest = policy.latest.num_versions
    return {"versions": f"latest:{newest}"} if choice == "latest" and newest > 1 else {}


def _outputs(found: triton.ModelConfig, folder: Path) -> dict[str, Any]:
    """Return the names of classes, and what images are."""
    settings: dict[str, Any] = {}
    labels = {
        output.name: _labels(folder, output.label_filename)
        for output in found.output
        if output.label_filename
    }
    if labels:
        settings["labels"] = labels
    formats = {
        one.name: triton.ModelInput.Format.Name(one.format).removeprefix("FORMAT_")
        for one in found.input
        if one.format
    }
    if formats:
        settings["format"] = formats
    return settings


def _labels(folder: Path, name: str) -> list[str]:
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise SettingsError(f"{folder / PBTXT_FILE}: label_filename {name!r} leads elsewhere")
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise SettingsError(f"label_filename: {path} cannot be read: {why}") from error


def _rest(found: triton.ModelConfig) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if found.response_cache.enable:
        settings["response_cache"] = {}
    if found.model_warmup:
        most = max(1, found.max_batch_size)
        settings["warm_up"] = sorted(
            {min(most, max(1, one.batch_size)) for one in found.model_warmup}
        )
    if found.model_operations.op_library_filename:
        settings["custom_ops"] = list(found.model_operations.op_library_filename)
    return settings


def _engine_options(found: triton.ModelConfig) -> list[tuple[str, str, str]]:
    """Return the parameters that the engine knows: the key, its entry and the value."""
    options = []
    for key, parameter in sorted(found.parameters.items()):
        if key in ENTRIES:
            options.append((key, key, parameter.string_value))
        elif key == ARENA:
            options.append((key, "cpu_arena", parameter.string_value))
    return options


def _declared(found: triton.ModelConfig, path: Path) -> tuple[DeclaredTensor, ...]:
    inputs = [_tensor("input", one, path, optional=one.optional) for one in found.input]
    return (*inputs, *(_tensor("output", one, path) for one in found.output))


def _tensor(
    role: str,
    one: triton.ModelInput | triton.ModelOutput,
    path: Path,
    *,
    optional: bool = False,
) -> DeclaredTensor:
    """Return a tensor as it is declared.

    Raises:
        SettingsError: it is to have another shape, and cannot.
    """
    dims, reshape = tuple(one.dims), None
    if one.HasField("reshape"):
        reshape = Reshape(dims, tuple(one.reshape.shape))
        if problem := reshape_problem(reshape.told, reshape.own):
            raise SettingsError(f"{path}: reshape of {role} {one.name!r}: {problem}")
    return DeclaredTensor(role, one.name, _datatype(one), dims, optional, reshape)


def _datatype(one: triton.ModelInput | triton.ModelOutput) -> str:
    name = triton.DataType.Name(one.data_type).removeprefix("TYPE_")
    return {"INVALID": "", "STRING": "BYTES"}.get(name, name)


def _file_name(found: triton.ModelConfig, path: Path) -> str:
    name = found.default_model_filename
    if name and (Path(name).name != name or name in {".", ".."}):
        raise SettingsError(f"{path}: default_model_filename {name!r} is no name of a file")
    return name


def check_declared(
    declared: Sequence[DeclaredTensor], signature: Signature, *, batched: bool
) -> None:
    """See whether a model has the tensors that its config.pbtxt declares.

    Args:
        declared: they.
        signature: as callers are told it.
        batched: its tensors have the batch first, which those of config.pbtxt have not.

    Raises:
        EngineError: it lacks one, or has it of another datatype or shape.
    """
    there = {
        "input": {tensor.name: tensor for tensor in signature.inputs},
        "output": {tensor.name: tensor for tensor in signature.outputs},
    }
    for one in declared:
        tensor = there[one.role].get(one.name)
        if tensor is None:
            known = ", ".join(there[one.role])
            text = f"there is no {one.role} {one.name!r}; there are {known}"
        else:
            text = _difference(one, tensor, batched=batched)
        if text:
            raise EngineError(f"{PBTXT_FILE}: {text}")


def _difference(one: DeclaredTensor, tensor: Tensor, *, batched: bool) -> str:
    """Say in what a tensor is another one than declared; "" if in nothing."""
    subject = f"{one.role} {one.name!r}"
    datatype = datatype_of(tensor.dtype)
    if one.datatype not in {"", datatype}:
        return f"{subject} is declared as {one.datatype}, and the model has {datatype}"
    if one.optional and not tensor.shared:
        return f"{subject} is declared as optional, and the model has no value for it"
    shape = tensor.shape[1:] if batched and not tensor.shared else tensor.shape
    if fits(one.dims, shape) or not one.dims:
        return ""
    sizes = [-1 if size is None else size for size in shape]
    where = " behind the batch" if batched else ""
    return f"{subject} is declared with dims {list(one.dims)}, and the model has {sizes}{where}"
