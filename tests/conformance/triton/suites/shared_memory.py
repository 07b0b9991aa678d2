"""L0_shared_memory: regions are registered, used, and refused where they cannot be."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import shared_memory as shm

from .expectation import Suite, array_input, expect, refused

suite = Suite()
SIZE = 64
PAGE = os.sysconf("SC_PAGE_SIZE")
NAMES = ("input0", "input1", "output0", "output1")
FIRST, SECOND = np.arange(16, dtype=np.int32), np.ones(16, np.int32)
MODEL = "iii_batch"


def key(name: str) -> str:
    """Return the key of a region of this process."""
    return f"/inferd-suite-{os.getpid()}-{name}"


@contextmanager
def made(name: str, size: int = SIZE) -> Iterator[object]:
    """Make a shared memory object, and remove it."""
    handle = shm.create_shared_memory_region(name, key(name), size)
    try:
        yield handle
    finally:
        shm.destroy_shared_memory_region(handle)


@contextmanager
def four(client: InferenceServerClient, size: int = SIZE, offset: int = 0) -> Iterator[list]:
    """Make and register a region for each tensor, with the inputs in theirs."""
    with ExitStack() as stack:
        handles = [stack.enter_context(made(name, size + offset)) for name in NAMES]
        stack.callback(client.unregister_system_shared_memory)
        for name in NAMES:
            client.register_system_shared_memory(name, key(name), size, offset=offset)
        for handle, array in zip(handles, (FIRST, SECOND), strict=False):
            shm.set_shared_memory_region(handle, [array], offset=offset)
        yield handles


def tensors(
    changes: dict[str, tuple[str, int, int]] | None = None,
) -> tuple[list[InferInput], list[InferRequestedOutput]]:
    """Return inputs and outputs, each in its region: name, size and offset may be changed."""
    places = {name: (name, SIZE, 0) for name in NAMES} | (changes or {})
    inputs = [InferInput(f"INPUT{index}", [1, 16], "INT32") for index in (0, 1)]
    outputs = [InferRequestedOutput(f"OUTPUT{index}") for index in (0, 1)]
    for item, name in zip((*inputs, *outputs), NAMES, strict=True):
        item.set_shared_memory(*places[name])
    return inputs, outputs


def summed(handles: list, offset: int = 0) -> None:
    """Check both outputs in their regions."""
    for handle, expected in zip(handles[2:], (FIRST + SECOND, FIRST - SECOND), strict=True):
        found = shm.get_contents_as_numpy(handle, np.int32, [16], offset)
        expect(found.tolist() == expected.tolist(), found.tolist())


def regions(client: InferenceServerClient) -> set[str]:
    """Return the names that are registered."""
    return set(client.get_system_shared_memory_status().regions)


@suite.expects("a region can be registered and is listed")
def registered(client: InferenceServerClient) -> None:
    with made("one", 8):
        client.register_system_shared_memory("one", key("one"), 8)
        expect(regions(client) == {"one"}, regions(client))
        client.unregister_system_shared_memory("one")
        expect(regions(client) == set(), regions(client))


@suite.expects("unregistering what is not registered is no error")
def never_registered(client: InferenceServerClient) -> None:
    client.unregister_system_shared_memory("absent")


@suite.expects("registering a name again is refused, and the first one stays")
def twice(client: InferenceServerClient) -> None:
    with made("one", 8):
        client.register_system_shared_memory("one", key("one"), 8)
        refused(client.register_system_shared_memory, "one", key("one"), 8)
        expect(regions(client) == {"one"}, regions(client))
        client.unregister_system_shared_memory("one")


@suite.expects("inputs and outputs lie in regions")
def inferred(client: InferenceServerClient) -> None:
    with four(client) as handles:
        inputs, outputs = tensors()
        client.infer(MODEL, inputs, outputs=outputs)
        summed(handles)


@suite.expects("a region can be unregistered after it was used")
def unregistered_after(client: InferenceServerClient) -> None:
    with four(client):
        inputs, outputs = tensors()
        client.infer(MODEL, inputs, outputs=outputs)
        client.unregister_system_shared_memory("output0")
        expect(len(regions(client)) == 3, regions(client))
        refused(client.infer, MODEL, inputs, outputs=outputs)


@suite.expects("a region can be registered after others were used")
def registered_after(client: InferenceServerClient) -> None:
    with four(client), made("other"):
        inputs, outputs = tensors()
        client.infer(MODEL, inputs, outputs=outputs)
        client.register_system_shared_memory("other", key("other"), SIZE)
        expect(len(regions(client)) == 5, regions(client))


@suite.expects("an input's part that is larger than its tensor is refused")
def too_large(client: InferenceServerClient) -> None:
    with four(client), made("large", 2 * SIZE):
        client.register_system_shared_memory("large", key("large"), 2 * SIZE)
        inputs, outputs = tensors({"input1": ("large", 2 * SIZE, 0)})
        refused(client.infer, MODEL, inputs, outputs=outputs)


@suite.expects("a region may begin far into its object")
def far_offset(client: InferenceServerClient) -> None:
    with four(client, PAGE, 1023 * PAGE) as handles:
        inputs, outputs = tensors()
        client.infer(MODEL, inputs, outputs=outputs)
        summed(handles, 1023 * PAGE)


@suite.expects("inputs in regions and in the message mix")
def mixed(client: InferenceServerClient) -> None:
    with four(client) as handles:
        inputs, outputs = tensors()
        inputs[1] = array_input("INPUT1", SECOND[np.newaxis])
        client.infer(MODEL, inputs, outputs=outputs)
        summed(handles)


@suite.expects("all regions can be unregistered at once")
def unregistered(client: InferenceServerClient) -> None:
    with four(client):
        client.unregister_system_shared_memory()
        expect(regions(client) == set(), regions(client))


OUTSIDE = {
    "an output's offset at the end of its region is refused": ("output0", SIZE, SIZE),
    "an output that reaches beyond its region is refused": ("output0", SIZE, 1),
    "an offset of 2^62 is refused": ("output0", SIZE, 2**62),
}


def outside(client: InferenceServerClient, change: tuple[str, int, int]) -> None:
    """Check that a place outside its region is refused, and the next request served."""
    with four(client) as handles:
        inputs, outputs = tensors({"output0": change})
        refused(client.infer, MODEL, inputs, outputs=outputs)
        inputs, outputs = tensors()
        client.infer(MODEL, inputs, outputs=outputs)
        summed(handles)


for name, change in OUTSIDE.items():
    suite.add(name, outside, change)

UNFIT = {
    "one byte too many": (SIZE + 1, 0),
    "an offset that leaves too few": (SIZE, 1),
    "an offset at the end": (1, SIZE),
    "an offset beyond the end": (0, SIZE + 1),
}


def unfit(client: InferenceServerClient, size: int, offset: int) -> None:
    """Check that what the object does not have cannot be registered."""
    with made("one"):
        refused(client.register_system_shared_memory, "one", key("one"), size, offset=offset)
        expect(regions(client) == set(), regions(client))


for name, (size, offset) in UNFIT.items():
    suite.add(f"registering {name} is refused", unfit, size, offset)

for bad in ("/", "///", "", "/inferd/../shm", "/does-not-exist"):

    def no_key(client: InferenceServerClient, bad: str) -> None:
        refused(client.register_system_shared_memory, "one", bad, SIZE)
        expect(regions(client) == set(), regions(client))

    suite.add(f"the key {bad!r} is refused", no_key, bad)


@suite.expects("keys of Triton's own Python back end are refused")
def reserved(client: InferenceServerClient) -> None:
    name = "triton_python_backend_shm_region_suite"
    path = Path("/dev/shm") / name
    path.write_bytes(bytes(SIZE))
    try:
        refused(client.register_system_shared_memory, "one", f"/{name}", SIZE)
    finally:
        client.unregister_system_shared_memory("one")
        path.unlink()


def while_used(client: InferenceServerClient, unregister: Callable[[], None]) -> None:
    """Check that a request that began with its regions ends well, and the next is refused."""
    with four(client) as handles:
        inputs, outputs = tensors()
        answers: list[object] = []
        waiting = client.async_infer(
            "delayed", inputs, lambda result, error: answers.append(error), outputs=outputs
        )
        unregister()
        while not answers:
            pass
        del waiting
        expect(answers == [None], answers)
        summed(handles)
        refused(client.infer, "delayed", inputs, outputs=outputs)


@suite.expects("regions that are unregistered while a request uses them serve it", quick=False)
def used(client: InferenceServerClient) -> None:
    def soon() -> None:
        time.sleep(0.2)
        client.unregister_system_shared_memory()

    while_used(client, soon)


if __name__ == "__main__":
    suite.run()
