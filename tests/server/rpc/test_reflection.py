"""Server reflection over a real socket."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from inferd_server.rpc.routes import HEALTH, INFERENCE, SERVER

from tests.server.serving import PATIENCE, Running, failure


def reflect(server: Running, *requests: ServerReflectionRequest) -> list[ServerReflectionResponse]:
    stub = ServerReflectionStub(server.channel)
    return list(stub.ServerReflectionInfo(iter(requests), timeout=PATIENCE))


def test_every_service_is_listed(served: Running) -> None:
    (answer,) = reflect(served, ServerReflectionRequest(list_services=""))
    assert {service.name for service in answer.list_services_response.service} == {
        "inference.GRPCInferenceService",
        "inferd.v1.FeedbackService",
        "inferd.v1.ReleaseService",
        "xds.service.orca.v3.OpenRcaService",
        "inferd.v1.ServerService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_a_symbol_is_found_in_its_file(served: Running) -> None:
    symbol = "inference.GRPCInferenceService"
    (answer,) = reflect(served, ServerReflectionRequest(file_containing_symbol=symbol))
    files = [
        FileDescriptorProto.FromString(data)
        for data in answer.file_descriptor_response.file_descriptor_proto
    ]
    methods = {m.name for file in files for s in file.service for m in s.method}
    assert {"ModelInfer", "ModelStreamInfer"} <= methods


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
@pytest.mark.parametrize("method", ["", ".ServerReflectionInfo"])
def test_reflection_describes_both_of_its_versions_over_both(
    served: Running, version: str, method: str
) -> None:
    service = f"grpc.reflection.{version}.ServerReflection"
    asked = ServerReflectionRequest(file_containing_symbol=service + method)
    for path in ("v1", "v1alpha"):
        call = served.channel.stream_stream(
            f"/grpc.reflection.{path}.ServerReflection/ServerReflectionInfo"
        )
        (data,) = call(iter([asked.SerializeToString()]), timeout=PATIENCE)
        answer = ServerReflectionResponse.FromString(data)
        (found,) = answer.file_descriptor_response.file_descriptor_proto
        file = FileDescriptorProto.FromString(found)
        assert file.package == f"grpc.reflection.{version}"
        assert file.service[0].method[0].input_type == f".{file.package}.ServerReflectionRequest"
        again = ServerReflectionRequest(file_by_filename=file.name)
        (data,) = call(iter([again.SerializeToString()]), timeout=PATIENCE)
        named = ServerReflectionResponse.FromString(data)
        assert list(named.file_descriptor_response.file_descriptor_proto) == [found]


def test_requests_of_one_stream_are_answered_in_order(served: Running) -> None:
    answers = reflect(
        served,
        ServerReflectionRequest(file_containing_symbol="no.such.Symbol"),
        ServerReflectionRequest(list_services=""),
        ServerReflectionRequest(file_by_filename="inferd/v1/server.proto"),
    )
    assert answers[0].error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert answers[1].list_services_response.service
    assert answers[2].file_descriptor_response.file_descriptor_proto


def test_every_method_of_every_service_is_answered(served: Running) -> None:
    for service in (INFERENCE, SERVER, HEALTH):
        for method in service.methods:
            call = served.channel.stream_stream(f"/{service.full_name}/{method.name}")
            answers = call(iter([b""]), timeout=PATIENCE)
            try:
                next(answers)
            except grpc.RpcError as error:
                assert error.details() != "Method not found!"  # noqa: PT017 most answer OK
            answers.cancel()


def test_a_method_that_is_not_there_is_unimplemented(served: Running) -> None:
    call = served.channel.unary_unary("/inference.GRPCInferenceService/Nope")
    error = failure(lambda: call(b"", timeout=PATIENCE))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
