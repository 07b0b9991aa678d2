"""What tritonclient's own examples do, call by call, where no other module here does it."""

from __future__ import annotations

import asyncio
import queue
import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc as grpcio
import numpy as np
from tritonclient import grpc
from tritonclient.grpc import aio, model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import shared_memory as shm

from .case import report, row, run, simple_inputs, tensor, value

VALUES = (11, 7, 5, 3, 2, 0, 1)
TIMEOUT = 30.0


def number(value_: int) -> list[grpc.InferInput]:
    return [tensor("INPUT0", np.array([[value_]], dtype=np.int32))]


def sequence_options(sequence: int | str, step: int) -> dict[str, Any]:
    return {
        "request_id": f"{sequence}_{step}",
        "sequence_id": sequence,
        "sequence_start": step == 0,
        "sequence_end": step == len(VALUES) - 1,
    }


def sequences_over_a_stream(client: grpc.InferenceServerClient) -> object:
    """Two sequences, one after the other, whose answers are told apart by their order."""
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put(error or result))
    for sequence, sign in ((1007, 1), ("1008", -1)):
        for step, value_ in enumerate(VALUES):
            client.async_stream_infer(
                "summing_strings" if isinstance(sequence, str) else "summing",
                number(sign * value_),
                **sequence_options(sequence, step),
            )
    found = [answers.get(timeout=TIMEOUT) for _ in range(2 * len(VALUES))]
    client.stop_stream()
    return [[result.get_response().id, value(result)[0][0]] for result in found]


def sequences_one_call_at_a_time(client: grpc.InferenceServerClient) -> object:
    sums = []
    for step, value_ in enumerate(VALUES):
        for sequence, sign in ((2001, 1), (-2002, -1)):
            options = sequence_options(sequence, step)
            answer = client.infer("summing", number(sign * value_), **options)
            sums.append(value(answer)[0][0])
    return [sums[0::2], sums[1::2]]


async def sequences_over_an_asynchronous_stream(url: str) -> object:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for step, value_ in enumerate(VALUES):
            options = sequence_options(3001, step)
            yield {"model_name": "summing", "inputs": number(value_), **options}

    async with aio.InferenceServerClient(url) as client:
        found = []
        async for result, error in client.stream_infer(requests()):
            assert error is None, error
            found.append(value(result)[0][0])
        return found


def image_client(client: grpc.InferenceServerClient) -> object:
    """Metadata and configuration decide how images are laid out; the best classes come back."""
    metadata = client.get_model_metadata("images")
    config = client.get_model_config("images").config
    given = config.input[0]
    assert len(metadata.inputs) == len(metadata.outputs) == 1
    assert given.format == model_config_pb2.ModelInput.FORMAT_NCHW
    channels, height, width = given.dims
    images = np.zeros((2, channels, height, width), dtype=np.float32)
    images[0, 1], images[1, 2] = 0.5, 0.25
    wanted = [grpc.InferRequestedOutput(metadata.outputs[0].name, class_count=2)]
    inputs = [tensor(metadata.inputs[0].name, images)]
    found = {"classes": value(client.infer("images", inputs, outputs=wanted))}
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put(error or result))
    client.async_stream_infer("images", inputs, outputs=wanted, request_id="0")
    found["streamed"] = value(answers.get(timeout=TIMEOUT))
    client.stop_stream()
    return {**found, "batch": config.max_batch_size}


def keepalive(_: grpc.InferenceServerClient) -> object:
    options = grpc.KeepAliveOptions(
        keepalive_time_ms=2**31 - 1,
        keepalive_timeout_ms=20_000,
        keepalive_permit_without_calls=False,
        http2_max_pings_without_data=2,
    )
    with grpc.InferenceServerClient(sys.argv[1], keepalive_options=options) as client:
        return value(client.infer("simple", simple_inputs()))[0][:2]


def custom_channel_arguments(_: grpc.InferenceServerClient) -> object:
    arguments = [("grpc.lb_policy_name", "pick_first")]
    with grpc.InferenceServerClient(sys.argv[1], channel_args=arguments) as client:
        return value(client.infer("simple", simple_inputs()))[0][:2]


def shared_memory_from_the_beginning(client: grpc.InferenceServerClient) -> object:
    """Forget every region, of CUDA too; then registered, used, listed and forgotten."""
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()
    inputs, outputs = simple_inputs(), [grpc.InferRequestedOutput("OUTPUT0")]
    region = shm.create_shared_memory_region("output_data", "/inferd_example", 64)
    try:
        client.register_system_shared_memory("output_data", "/inferd_example", 64)
        outputs[0].set_shared_memory("output_data", 64)
        client.infer("simple", inputs, outputs=outputs)
        shared = shm.get_contents_as_numpy(region, np.int32, [1, 16])[0, :2].tolist()
        listed = list(client.get_system_shared_memory_status().regions)
        # The same objects once more, without shared memory.
        outputs[0].unset_shared_memory()
        plain = value(client.infer("simple", inputs, outputs=outputs))[0][:2]
    finally:
        client.unregister_system_shared_memory()
        shm.destroy_shared_memory_region(region)
    left = len(client.get_system_shared_memory_status().regions)
    return {"shared": shared, "listed": listed, "plain": plain, "left": left}


def raw_stub(_: grpc.InferenceServerClient) -> object:
    """The generated stub without tritonclient's classes: raw and typed contents."""
    with grpcio.insecure_channel(sys.argv[1]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerLive(service_pb2.ServerLiveRequest()).live
        assert stub.ServerReady(service_pb2.ServerReadyRequest()).ready
        assert stub.ModelReady(service_pb2.ModelReadyRequest(name="simple")).ready
        found = {}
        request = service_pb2.ModelInferRequest(model_name="simple")
        for name in ("INPUT0", "INPUT1"):
            request.inputs.add(name=name, datatype="INT32", shape=[1, 16])
            request.raw_input_contents.append(np.arange(16, dtype=np.int32).tobytes())
        request.outputs.add(name="OUTPUT0")
        answer = stub.ModelInfer(request).raw_output_contents[0]
        found["raw"] = np.frombuffer(answer, np.int32)[:3].tolist()
        for model, datatype, contents in (
            ("bytes", "INT8", {"int_contents": range(16)}),
            ("strings", "BYTES", {"bytes_contents": [b"one", b"two"]}),
        ):
            request = service_pb2.ModelInferRequest(model_name=model)
            length = len(next(iter(contents.values())))
            given = request.inputs.add(name="INPUT0", datatype=datatype, shape=[1, length])
            for field, values in contents.items():
                getattr(given.contents, field).extend(values)
            found[model] = len(stub.ModelInfer(request).raw_output_contents[0])
        return found


def health_and_metadata(client: grpc.InferenceServerClient) -> object:
    return {
        "live": client.is_server_live(headers={"test": "1", "dummy": "2"}),
        "ready": client.is_server_ready(),
        "model": client.is_model_ready("simple"),
        "name": client.get_server_metadata().name,
        "several": len(client.get_model_repository_index().models) > 1,
    }


def the_same_call_many_times(client: grpc.InferenceServerClient) -> object:
    inputs = row(1, 2, 3, 4)
    answers = {str(value(client.infer("animals", inputs))) for _ in range(500)}
    return sorted(answers)


if __name__ == "__main__":
    run(
        [
            *(sequences_over_a_stream, sequences_one_call_at_a_time, image_client, keepalive),
            *(custom_channel_arguments, shared_memory_from_the_beginning, raw_stub),
            *(health_and_metadata, the_same_call_many_times),
        ]
    )
    asynchronous = sequences_over_an_asynchronous_stream
    report(asynchronous.__name__, partial(asyncio.run, asynchronous(sys.argv[1])))
