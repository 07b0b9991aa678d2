"""System shared memory as tritonclient makes it, and CUDA shared memory, which is refused."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import serialize_byte_tensor
from tritonclient.utils import shared_memory as shm

from .case import refusal, run, simple_inputs

ROW = np.arange(16, dtype=np.int32)[np.newaxis]
SIZE = ROW.nbytes
NAME = "region"
KEY = f"/inferd-conformance-{os.getpid()}"


@contextmanager
def region(client: InferenceServerClient, byte_size: int = 4 * SIZE) -> Iterator[object]:
    """Make a region, register it, and remove both at the end."""
    handle = shm.create_shared_memory_region(NAME, KEY, byte_size)
    try:
        client.register_system_shared_memory(NAME, KEY, byte_size)
        yield handle
    finally:
        client.unregister_system_shared_memory(NAME)
        shm.destroy_shared_memory_region(handle)


def shared(name: str, datatype: str, shape: list[int], byte_size: int, offset: int) -> InferInput:
    """Return an input that lies in the region."""
    item = InferInput(name, shape, datatype)
    return item.set_shared_memory(NAME, byte_size, offset)


def status(client: InferenceServerClient) -> object:
    with region(client):
        during = client.get_system_shared_memory_status(as_json=True)["regions"]
        one = client.get_system_shared_memory_status(NAME).regions[NAME].byte_size
    after = client.get_system_shared_memory_status(as_json=True)
    entry = during[NAME]
    return {"during": {**entry, "key": entry["key"] == KEY}, "one": one, "after": after}


def inputs_and_outputs(client: InferenceServerClient) -> object:
    with region(client) as handle:
        shm.set_shared_memory_region(handle, [ROW, np.ones_like(ROW)])
        inputs = [shared(f"INPUT{index}", "INT32", [1, 16], SIZE, index * SIZE) for index in (0, 1)]
        outputs = [InferRequestedOutput(f"OUTPUT{index}") for index in (0, 1)]
        for index, output in enumerate(outputs):
            output.set_shared_memory(NAME, SIZE, (2 + index) * SIZE)
        result = client.infer("simple", inputs, outputs=outputs)
        # Copied, because the region is unmapped before the result is printed.
        both = shm.get_contents_as_numpy(handle, np.int32, [2, 16], 2 * SIZE).tolist()
    response = result.get_response(as_json=True)
    return {
        "values": both,
        "described": response["outputs"],
        "raw": response.get("raw_output_contents"),
    }


def output_beside_the_message(client: InferenceServerClient) -> object:
    with region(client) as handle:
        output = InferRequestedOutput("OUTPUT0")
        output.set_shared_memory(NAME, SIZE)
        outputs = [output, InferRequestedOutput("OUTPUT1")]
        result = client.infer("simple", simple_inputs(), outputs=outputs)
        return {
            "OUTPUT0": shm.get_contents_as_numpy(handle, np.int32, [1, 16]).tolist(),
            "OUTPUT1": result.as_numpy("OUTPUT1").tolist(),
        }


def strings(client: InferenceServerClient) -> object:
    words = serialize_byte_tensor(np.array([[b"first", b""]], dtype=object))
    size = len(words.item())
    with region(client) as handle:
        shm.set_shared_memory_region(handle, [words])
        output = InferRequestedOutput("OUTPUT0")
        output.set_shared_memory(NAME, SIZE, SIZE)
        inputs = [shared("INPUT0", "BYTES", [1, 2], size, 0)]
        client.infer("strings", inputs, outputs=[output])
        found = shm.get_contents_as_numpy(handle, np.object_, [1, 2], SIZE)
        return [word.decode() for word in found.reshape(-1)]


def registration_with_an_offset(client: InferenceServerClient) -> object:
    handle = shm.create_shared_memory_region(NAME, KEY, 3 * SIZE)
    try:
        shm.set_shared_memory_region(handle, [np.zeros_like(ROW), ROW, ROW])
        client.register_system_shared_memory(NAME, KEY, 2 * SIZE, offset=SIZE)
        inputs = [shared(f"INPUT{index}", "INT32", [1, 16], SIZE, 0) for index in (0, 1)]
        return client.infer("simple", inputs).as_numpy("OUTPUT0").tolist()
    finally:
        client.unregister_system_shared_memory()
        shm.destroy_shared_memory_region(handle)


def unregister_all(client: InferenceServerClient) -> object:
    with region(client):
        client.register_system_shared_memory("other", KEY, SIZE)
        before = sorted(client.get_system_shared_memory_status().regions)
        client.unregister_system_shared_memory()
        return [before, sorted(client.get_system_shared_memory_status().regions)]


def refusals(client: InferenceServerClient) -> object:
    register = client.register_system_shared_memory
    with region(client):
        found = {
            "twice": refusal(register, NAME, KEY, SIZE),
            "unknown_key": refusal(register, "other", "/inferd-conformance-absent", SIZE),
            "too_large": refusal(register, "other", KEY, 2**30),
            "input_past_the_end": refusal(
                client.infer,
                "simple",
                [shared("INPUT0", "INT32", [1, 16], SIZE, 4 * SIZE), simple_inputs()[1]],
            ),
        }
    gone = [shared("INPUT0", "INT32", [1, 16], SIZE, 0), simple_inputs()[1]]
    found["unregistered"] = refusal(client.infer, "simple", gone)
    found["unknown_status"] = refusal(client.get_system_shared_memory_status, NAME)
    return found


def output_too_small(client: InferenceServerClient) -> object:
    with region(client):
        output = InferRequestedOutput("OUTPUT0")
        output.set_shared_memory(NAME, SIZE - 1)
        return refusal(client.infer, "simple", simple_inputs(), outputs=[output])


def cuda(client: InferenceServerClient) -> object:
    handle = base64.b64encode(b"\x00" * 64)
    return {
        "unregistered": [
            client.unregister_cuda_shared_memory(),
            client.unregister_cuda_shared_memory(NAME),
        ],
        "status": client.get_cuda_shared_memory_status(as_json=True),
        "one": refusal(client.get_cuda_shared_memory_status, NAME),
        "register": refusal(client.register_cuda_shared_memory, NAME, handle, 0, SIZE),
    }


if __name__ == "__main__":
    run(
        [
            *(status, inputs_and_outputs, output_beside_the_message, strings),
            *(registration_with_an_offset, unregister_all, refusals, output_too_small, cuda),
        ]
    )
