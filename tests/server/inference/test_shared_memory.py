"""System shared memory: tensors that never travel in a message."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from inferd.oip.v2 import inference_pb2 as oip
from inferd.tensors import Array, encode_bytes

from tests.server.inference.served import assert_still_serves
from tests.server.serving import (
    PATIENCE,
    Running,
    arrays,
    failure,
    infer_request,
    rows,
    running_fake,
)

SHM = Path("/dev/shm")


@pytest.fixture
def segment() -> Iterator[Path]:
    """A shared memory object of 4096 bytes."""
    path = SHM / f"inferd-test-{uuid.uuid4().hex}"
    path.write_bytes(bytes(4096))
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def region(served: Running, segment: Path) -> Iterator[str]:
    """The whole segment, registered."""
    register(served, segment.name, f"/{segment.name}")
    yield segment.name
    unregister(served, segment.name)


def register(server: Running, name: str, key: str, offset: int = 0, byte_size: int = 4096) -> None:
    server.stub.SystemSharedMemoryRegister(
        oip.SystemSharedMemoryRegisterRequest(
            name=name, key=key, offset=offset, byte_size=byte_size
        ),
        timeout=PATIENCE,
    )


def unregister(server: Running, name: str) -> None:
    server.stub.SystemSharedMemoryUnregister(
        oip.SystemSharedMemoryUnregisterRequest(name=name), timeout=PATIENCE
    )


def status(server: Running, name: str = "") -> dict[str, tuple[str, int, int]]:
    answer = server.stub.SystemSharedMemoryStatus(
        oip.SystemSharedMemoryStatusRequest(name=name), timeout=PATIENCE
    )
    return {
        key: (region.key, region.offset, region.byte_size) for key, region in answer.regions.items()
    }


def place(tensor: object, region: str, byte_size: int, offset: int = 0) -> None:
    parameters = tensor.parameters  # type: ignore[attr-defined]
    parameters["shared_memory_region"].string_param = region
    parameters["shared_memory_byte_size"].int64_param = byte_size
    if offset:
        parameters["shared_memory_offset"].int64_param = offset


def from_region(
    model: str, array: Array, region: str, byte_size: int, offset: int = 0
) -> oip.ModelInferRequest:
    request = infer_request(model, {"INPUT0": array}, outputs=("OUTPUT0",))
    del request.raw_input_contents[:]
    place(request.inputs[0], region, byte_size, offset)
    return request


@pytest.mark.parametrize("offset", [0, 3, 4080])
def test_an_input_is_read_from_its_region(
    served: Running, segment: Path, region: str, offset: int
) -> None:
    array = np.array([[1.5, -2, np.inf, 0]], dtype=np.float32)
    write(segment, array.tobytes(), offset)
    outputs = arrays(served.infer(from_region("rows_FP32", array, region, 16, offset)))
    np.testing.assert_array_equal(outputs["OUTPUT0"], array)


def test_empty_contents_beside_a_region_say_nothing(
    served: Running, segment: Path, region: str
) -> None:
    values = np.arange(4, dtype=np.float32).reshape(1, 4)
    write(segment, values.tobytes())
    request = from_region("rows_FP32", values, region, 16)
    request.inputs[0].contents.SetInParent()
    np.testing.assert_array_equal(arrays(served.infer(request))["OUTPUT0"], values)


def test_strings_are_read_from_a_region(served: Running, segment: Path, region: str) -> None:
    array = np.array([[b"one", b""]], dtype=object)
    data = encode_bytes(array)
    write(segment, data, 8)
    outputs = arrays(served.infer(from_region("strings", array, region, len(data), 8)))
    assert outputs["OUTPUT0"].tolist() == array.tolist()


def test_damaged_strings_in_a_region_are_refused(served: Running, region: str) -> None:
    array = np.array([[b"one", b"two"]], dtype=object)
    error = served.refused(from_region("strings", array, region, 9))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "not valid BYTES" in error.details()


def test_an_output_is_written_to_its_region(served: Running, segment: Path, region: str) -> None:
    request = infer_request("scaled", rows(1.0, 2.0), outputs=("OUTPUT0",))
    place(request.outputs[0], region, 100, 64)
    response = served.infer(request)
    written = np.frombuffer(segment.read_bytes()[64:96], np.float32).reshape(2, 4)
    np.testing.assert_array_equal(written[:, 0], [3, 6])
    assert list(response.raw_output_contents) == [b""]
    parameters = response.outputs[0].parameters
    assert parameters["shared_memory_region"].string_param == region
    assert parameters["shared_memory_byte_size"].int64_param == 32
    assert parameters["shared_memory_offset"].int64_param == 64
    assert set(segment.read_bytes()[96:]) == {0}


def test_one_input_in_a_region_and_the_other_in_the_message(
    served: Running, segment: Path, region: str
) -> None:
    ones = np.ones((1, 16), dtype=np.int32)
    request = infer_request("simple", {"INPUT0": ones, "INPUT1": ones * 3})
    del request.raw_input_contents[0]
    write(segment, (ones * 10).tobytes())
    place(request.inputs[0], region, 64)
    outputs = arrays(served.infer(request))
    assert (outputs["OUTPUT0"] == 13).all()
    assert (outputs["OUTPUT1"] == 7).all()


def test_an_output_that_does_not_fit_is_refused(served: Running, region: str) -> None:
    request = infer_request("rows_FP32", rows(1.0, 2.0), outputs=("OUTPUT0",))
    place(request.outputs[0], region, 31)
    error = served.refused(request)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "32 bytes" in error.details()
    assert "31 are set aside" in error.details()


@pytest.mark.parametrize(("byte_size", "offset"), [(16, 4081), (5000, 0), (2**62, 2**62)])
@pytest.mark.parametrize("where", ["input", "output"])
def test_a_part_beyond_the_end_is_refused(
    served: Running, region: str, where: str, byte_size: int, offset: int
) -> None:
    request = infer_request("rows_FP32", rows(1.0), outputs=("OUTPUT0",))
    if where == "input":
        del request.raw_input_contents[:]
    tensor = request.inputs[0] if where == "input" else request.outputs[0]
    place(tensor, region, byte_size, offset)
    error = served.refused(request)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert f"byte {offset + byte_size} of shared memory region" in error.details()
    assert "4096" in error.details()


@pytest.mark.parametrize("byte_size", [0, 15, 17])
def test_a_part_of_another_size_than_the_shape_is_refused(
    served: Running, region: str, byte_size: int
) -> None:
    error = served.refused(from_region("rows_FP32", rows(1.0)["INPUT0"], region, byte_size))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert f"{byte_size} bytes; 16 were expected" in error.details()


@pytest.mark.parametrize("where", ["input", "output"])
def test_an_object_that_shrank_is_an_error_and_no_crash(
    served: Running, segment: Path, region: str, where: str
) -> None:
    request = infer_request("rows_FP32", rows(1.0), outputs=("OUTPUT0",))
    if where == "input":
        request = from_region("rows_FP32", rows(1.0)["INPUT0"], region, 16, 4000)
    else:
        place(request.outputs[0], region, 16, 4000)
    os.truncate(segment, 4008)
    error = served.refused(request)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "shrunk" in error.details()
    assert segment.stat().st_size == 4008
    assert_still_serves(served)


def test_an_object_that_was_unlinked_is_still_there_for_its_region(
    served: Running, segment: Path, region: str
) -> None:
    write(segment, rows(5.0)["INPUT0"].tobytes())
    segment.unlink()
    outputs = arrays(served.infer(from_region("rows_FP32", rows(1.0)["INPUT0"], region, 16)))
    np.testing.assert_array_equal(outputs["OUTPUT0"], rows(5.0)["INPUT0"])


def test_a_region_unregistered_while_a_request_runs_still_gets_its_output(
    tmp_path: Path, segment: Path
) -> None:
    with running_fake(tmp_path) as (server, engine):
        register(server, "r", segment.name)
        request = infer_request("fake", rows(4.0), outputs=("OUTPUT0",))
        place(request.outputs[0], "r", 16)
        engine.hold()
        future = server.stub.ModelInfer.future(request, timeout=PATIENCE)
        assert engine.running.wait(PATIENCE)
        unregister(server, "r")
        assert status(server) == {}
        engine.release()
        assert future.result().outputs[0].parameters["shared_memory_region"].string_param == "r"
        assert np.frombuffer(segment.read_bytes()[:16], np.float32).tolist() == [8.0] * 4


def test_descriptors_are_closed_when_regions_go(tmp_path: Path, segment: Path) -> None:
    def descriptors() -> int:
        links = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        return sum(path.readlink() == segment for path in links)

    with running_fake(tmp_path) as (server, _):
        for number in range(5):
            register(server, f"r{number}", segment.name)
        assert descriptors() == 5
        unregister(server, "")
        assert descriptors() == 0


def test_the_status_lists_regions(served: Running, segment: Path) -> None:
    register(served, "part", segment.name, 16, 32)
    assert status(served, "part") == {"part": (segment.name, 16, 32)}
    assert status(served)["part"] == (segment.name, 16, 32)
    unregister(served, "part")
    error = failure(lambda: status(served, "part"))
    assert error.code() == grpc.StatusCode.NOT_FOUND
    unregister(served, "part")


def test_a_name_is_registered_once(served: Running, region: str) -> None:
    error = failure(lambda: register(served, region, region))
    assert error.code() == grpc.StatusCode.ALREADY_EXISTS


@pytest.mark.parametrize("key", ["", "/", "..", "/..", "../etc/passwd", "/a/b", ".", "a\0b", "no"])
def test_a_key_that_names_no_object_is_refused(served: Running, key: str) -> None:
    error = failure(lambda: register(served, "r", key))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "shared memory object" in error.details()
    assert "r" not in status(served)


def test_a_link_out_of_the_folder_is_not_followed(
    served: Running, segment: Path, tmp_path: Path
) -> None:
    target = tmp_path / "secret"
    target.write_bytes(bytes(4096))
    segment.unlink()
    segment.symlink_to(target)
    error = failure(lambda: register(served, "r", segment.name))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("name", "offset", "byte_size", "words"),
    [
        ("r", 0, 4097, "has 4096 bytes"),
        ("r", 4096, 1, "reaches to byte 4097"),
        ("r", 2**63, 2**63, "has 4096 bytes"),
        ("r", 0, 0, "at least 1 byte"),
        ("", 0, 1, "needs a name"),
    ],
)
def test_a_region_that_cannot_be_is_refused(
    served: Running, segment: Path, name: str, offset: int, byte_size: int, words: str
) -> None:
    error = failure(lambda: register(served, name, segment.name, offset, byte_size))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert words in error.details()


def write(path: Path, data: bytes, offset: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
