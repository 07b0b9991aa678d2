"""Our messages leave protobuf's default pool to the other packages that speak the protocol."""

from __future__ import annotations

import pickle

import pytest
from google.protobuf import descriptor_pool
from inferd.oip.v2 import inference_pb2, model_config_pb2
from inferd.v1 import server_pb2

from tests.proto.in_python import assert_succeeds

NAMES = [
    f"{module.DESCRIPTOR.package}.{name}"
    for module in (inference_pb2, model_config_pb2, server_pb2)
    for name in module.DESCRIPTOR.message_types_by_name
]


@pytest.mark.parametrize("name", NAMES)
def test_the_default_pool_does_not_know_our_messages(name: str) -> None:
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName(name)


def test_enums_have_their_names_and_numbers() -> None:
    assert model_config_pb2.DataType.Name(model_config_pb2.TYPE_FP32) == "TYPE_FP32"
    assert model_config_pb2.DataType.Value("TYPE_FP32") == model_config_pb2.TYPE_FP32
    group = model_config_pb2.ModelInstanceGroup(kind=model_config_pb2.ModelInstanceGroup.KIND_CPU)
    assert model_config_pb2.ModelInstanceGroup.Kind.Name(group.kind) == "KIND_CPU"


def test_messages_can_be_pickled() -> None:
    request = inference_pb2.ModelInferRequest(model_name="m", raw_input_contents=[b"1"])
    assert pickle.loads(pickle.dumps(request)) == request


def test_the_stubs_work_where_protobuf_runs_in_python() -> None:
    """Platforms without a wheel of protobuf have no other one."""
    code = (
        "from inferd.oip.v2.inference_pb2 import ModelInferRequest, RepositoryIndexResponse\n"
        "tensor = ModelInferRequest.InferInputTensor(name='x')\n"
        "sent = ModelInferRequest(inputs=[tensor])\n"
        "assert ModelInferRequest.FromString(sent.SerializeToString()) == sent\n"
        "assert RepositoryIndexResponse.ModelIndex(name='m').name == 'm'\n"
    )
    assert_succeeds(code)
