"""config.pbtxt of a Triton repository: read, and looked through for what is not served here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from inferd.oip.v2 import model_config_pb2 as triton

from inferd_server.errors import SettingsError

PBTXT_FILE = "config.pbtxt"
BACKENDS = frozenset({"", "onnxruntime"})
PLATFORMS = frozenset({"", "onnxruntime_onnx"})
NO_RAGGED = "requests of several shapes are not laid end to end here"
NO_PLAN = "only TensorRT's own plans have such tensors"
REFUSED: Mapping[str, str] = {
    "ensemble_scheduling": "ensembles are not served: call the models one after the other",
    "batch_input": NO_RAGGED,
    "batch_output": NO_RAGGED,
    "input.allow_ragged_batch": NO_RAGGED,
    "input.is_shape_tensor": NO_PLAN,
    "output.is_shape_tensor": NO_PLAN,
    "input.is_non_linear_format_io": NO_PLAN,
    "output.is_non_linear_format_io": NO_PLAN,
    "model_transaction_policy.decoupled": "each request has one answer here",
    "model_repository_agents": "nothing is done here to a model's files before they are loaded",
    "sequence_batching.iterative_sequence": "each step of a sequence is a request here",
    "sequence_batching.state.initial_state.data_file": "states begin as zeros here",
}
"""What would change answers, by the begin of its path, and what is said of it."""
TAKEN = frozenset({
    "name", "platform", "backend", "max_batch_size", "default_model_filename",
    "input.name", "input.data_type", "input.dims", "input.format", "input.optional",
    "output.name", "output.data_type", "output.dims", "output.label_filename",
    "input.reshape", "input.reshape.shape", "output.reshape", "output.reshape.shape",
    "version_policy.latest", "version_policy.latest.num_versions",
    "version_policy.all", "version_policy.specific.versions",
    "dynamic_batching", "dynamic_batching.preferred_batch_size",
    "dynamic_batching.max_queue_delay_microseconds", "dynamic_batching.priority_levels",
    "dynamic_batching.default_priority_level",
    *(
        f"dynamic_batching.{policy}.{field}"
        for policy in ("default_queue_policy", "priority_queue_policy")
        for field in (
            "max_queue_size", "timeout_action", "default_timeout_microseconds",
            "allow_timeout_override",
        )
    ),
    "sequence_batching", "sequence_batching.max_sequence_idle_microseconds",
    "sequence_batching.control_input.name", "sequence_batching.control_input.control",
    "sequence_batching.control_input.control.kind",
    "sequence_batching.control_input.control.int32_false_true",
    "sequence_batching.control_input.control.fp32_false_true",
    "sequence_batching.control_input.control.bool_false_true",
    "sequence_batching.control_input.control.data_type",
    "sequence_batching.state.input_name", "sequence_batching.state.output_name",
    "sequence_batching.state.data_type", "sequence_batching.state.dims",
    "sequence_batching.state.initial_state.data_type",
    "sequence_batching.state.initial_state.dims",
    "sequence_batching.state.initial_state.zero_data",
    "sequence_batching.state.initial_state.name",
    "sequence_batching.oldest", "sequence_batching.oldest.max_candidate_sequences",
    "sequence_batching.oldest.preferred_batch_size",
    "sequence_batching.oldest.max_queue_delay_microseconds",
    "instance_group", "instance_group.name", "instance_group.count", "instance_group.gpus",
    "parameters", "response_cache.enable", "model_operations.op_library_filename",
    "model_warmup.name", "model_warmup.batch_size", "model_warmup.inputs.data_type",
    "model_warmup.inputs.dims", "model_warmup.inputs.zero_data",
})  # fmt: skip
"""Paths of fields that something is made of, parameters apart."""
_PLACE = re.compile(r"(\d+):\d+ : ")
_BATCH = re.compile(r"^\s*max_batch_size\s*:", re.MULTILINE)


def read_pbtxt(path: Path) -> tuple[triton.ModelConfig, bool]:
    """Read a config.pbtxt; return what it says, and whether it names max_batch_size.

    Raises:
        SettingsError: it cannot be read, or is none, with the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{path} is not text in UTF-8") from error
    found = triton.ModelConfig()
    try:
        text_format.Parse(text, found)
    except (text_format.ParseError, RecursionError) as error:
        raise SettingsError(_parse_problem(path, error)) from error
    return found, _BATCH.search(text) is not None


def _parse_problem(path: Path, error: Exception) -> str:
    said = _PLACE.sub("", " ".join(str(error).split()), count=1)
    said = said.replace('Message type "inference.', '"')
    line = error.GetLine() if isinstance(error, text_format.ParseError) else None
    where = f"{path}, line {line}" if line is not None else str(path)
    return f"{where}: {said}"


def check_served(found: triton.ModelConfig, path: Path, name: str) -> None:
    """Refuse what is for another back end, another model, or would change answers.

    Raises:
        SettingsError: it is.
    """
    if found.name not in {"", name}:
        raise SettingsError(f"{path}: name is {found.name!r}, and the folder is {name!r}")
    for field in sorted(paths_of(found)):
        for begin, why in REFUSED.items():
            if field == begin or field.startswith(f"{begin}."):
                raise SettingsError(f"{path}: {begin}: {why}")
    for field, value, served in (
        ("backend", found.backend, BACKENDS),
        ("platform", found.platform, PLATFORMS),
    ):
        if value not in served:
            known = max(served)
            raise SettingsError(f"{path}: {field} is {value!r}, and only {known!r} is served here")


def passed_over(found: triton.ModelConfig, parameters: frozenset[str]) -> tuple[str, ...]:
    """Return the fields that say what has no effect here.

    Args:
        found: what was read.
        parameters: names of those that have one.
    """
    fields = [path for path in sorted(paths_of(found)) if path not in TAKEN]
    names = [f"parameters.{key}" for key in sorted(found.parameters) if key not in parameters]
    return (*fields, *names)


def paths_of(message: Message) -> set[str]:
    """Return the paths of all fields that are set, such as "input.dims".

    What holds fields counts itself only if none of them is set.
    """
    return set(_paths(message, ""))


def _paths(message: Message, before: str) -> Iterator[str]:
    for field, value in message.ListFields():
        path = f"{before}{field.name}"
        inner = [deeper for one in _messages(field, value) for deeper in _paths(one, f"{path}.")]
        if path == "parameters" or not inner:
            yield path
        else:
            yield from inner


def _messages(field: FieldDescriptor, value: Any) -> list[Message]:
    """Return the messages that a field holds: one, several, or the values of a map."""
    if field.message_type is None:
        return []
    if field.message_type.GetOptions().map_entry:
        values = [value[key] for key in value]
        return [one for one in values if isinstance(one, Message)]
    return list(value) if not isinstance(value, Message) else [value]
