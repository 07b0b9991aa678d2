"""Our contract is Triton's: the same names, numbers and types, read from tritonclient itself."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.protobuf.message import Message
from inferd.oip.v2 import inference_pb2, model_config_pb2

from tests.conformance.tools import TRITON_PYTHON, output, require


@dataclass(frozen=True, slots=True)
class Contract:
    """What two sides must agree on, each by its full name."""

    messages: frozenset[str]
    fields: Mapping[str, Any]
    enums: Mapping[str, int]
    methods: Mapping[str, Any]


def contract(file: FileDescriptorProto) -> Contract:
    messages = dict(nested(file.package, file.message_type))
    return Contract(
        frozenset(messages),
        {
            f"{name}.{field.name}": field_facts(message, field)
            for name, message in messages.items()
            for field in message.field
        },
        dict(enum_values(file, messages)),
        {
            f"{service.name}.{method.name}": (
                *(method.input_type, method.output_type),
                *(method.client_streaming, method.server_streaming),
            )
            for service in file.service
            for method in service.method
        },
    )


def nested(scope: str, messages: Any) -> Iterator[tuple[str, DescriptorProto]]:
    """Yield messages with their full names, map entries and other inner ones included."""
    for message in messages:
        name = f"{scope}.{message.name}"
        yield name, message
        yield from nested(name, message.nested_type)


def field_facts(message: DescriptorProto, field: FieldDescriptorProto) -> Any:
    """Return number, type, label, type name, oneof, presence, and whether it is of a map entry."""
    oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
    kind = (field.type, field.label, field.type_name)
    return field.number, *kind, oneof, field.proto3_optional, message.options.map_entry


def enum_values(
    file: FileDescriptorProto, messages: Mapping[str, DescriptorProto]
) -> Iterator[tuple[str, int]]:
    scopes: list[tuple[str, FileDescriptorProto | DescriptorProto]]
    scopes = [(file.package, file), *messages.items()]
    for scope, owner in scopes:
        enums: Any = owner.enum_type
        for enum in enums:
            assert isinstance(enum, EnumDescriptorProto)
            yield from ((f"{scope}.{enum.name}.{value.name}", value.number) for value in enum.value)


def described(descriptor: Any) -> FileDescriptorProto:
    file = FileDescriptorProto()
    descriptor.CopyToProto(file)
    return file


@pytest.fixture(scope="module")
def theirs() -> list[Contract]:
    """The contracts of Triton's service and model configuration."""
    python = str(require(TRITON_PYTHON))
    text = output([python, "-m", "tests.proto.dump_descriptors"])
    files: Message = FileDescriptorSet.FromString(base64.b64decode(text))
    assert isinstance(files, FileDescriptorSet)
    return [contract(file) for file in files.file]


OURS = [contract(described(module.DESCRIPTOR)) for module in (inference_pb2, model_config_pb2)]
SERVICE, CONFIG = OURS


def test_the_service_has_every_method_of_tritons_and_no_other(theirs: list[Contract]) -> None:
    assert theirs[0].methods == SERVICE.methods
    assert SERVICE.methods["GRPCInferenceService.ModelStreamInfer"][2:] == (True, True)


def test_the_service_has_every_message_of_tritons_and_no_other(theirs: list[Contract]) -> None:
    assert theirs[0].messages == SERVICE.messages


def test_every_field_of_the_service_is_tritons(theirs: list[Contract]) -> None:
    assert theirs[0].fields == SERVICE.fields
    assert theirs[0].enums == SERVICE.enums


@pytest.mark.parametrize("field", sorted(CONFIG.fields))
def test_a_field_of_the_configuration_is_tritons(theirs: list[Contract], field: str) -> None:
    assert CONFIG.fields[field] == theirs[1].fields.get(field)


def test_every_enum_value_of_the_configuration_is_tritons(theirs: list[Contract]) -> None:
    assert CONFIG.enums.items() <= theirs[1].enums.items()


def test_a_datatype_that_triton_knows_is_known_here(theirs: list[Contract]) -> None:
    prefix = "inference.DataType."
    wanted = {name for name in theirs[1].enums if name.startswith(prefix)}
    assert wanted == {name for name in CONFIG.enums if name.startswith(prefix)}
