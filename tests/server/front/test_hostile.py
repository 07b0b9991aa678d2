"""Small messages that would become large: refused before much is made of them."""

from __future__ import annotations

import gzip
import resource
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from inferd.oip.v2 import inference_pb2 as oip
from inferd_server.errors import InvalidInput
from inferd_server.front import field_count
from inferd_server.front.field_count import MAX_FIELDS, MAX_OUTER_FIELDS, check_fields, known_fields
from inferd_server.front.fill import MAX_TEXT_ELEMENTS
from inferd_server.front.unary import parse_message
from inferd_server.front.wire import parse
from inferd_server.worker.inline import MOST_TEXT, InlineLoop

from tests import models
from tests.server.front.hostile import (
    SENSELESS,
    SIZE,
    TOO_MANY_FIELDS,
    field,
    filled,
    fitting,
    part,
)
from tests.server.front.served import assert_still_serves
from tests.server.serving import PATIENCE, Running, failure, running

ALL = TOO_MANY_FIELDS | SENSELESS
MORE_MEMORY = 200 << 20
SERVICE = "/inference.GRPCInferenceService"
REQUEST = known_fields(oip.ModelInferRequest)


def most_memory() -> int:
    """Bytes that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that takes any ratio of compression."""
    folder = models.repository(tmp_path_factory.mktemp("models"), {"simple": models.add_sub()})
    with running(folder, max_compression_ratio=0) as server:
        yield server


@pytest.mark.parametrize("pattern", ALL)
def test_a_message_that_is_small_in_gzip_is_small_work_too(patient: Running, pattern: str) -> None:
    message = ALL[pattern]
    assert len(gzip.compress(message)) < 24_000
    before = most_memory()
    call = patient.channel.unary_unary(f"{SERVICE}/ModelInfer")
    refused = call.future(message, timeout=PATIENCE, compression=grpc.Compression.Gzip)
    # Behind it on the one thread of the transport.
    assert_still_serves(patient)
    assert refused.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
    assert most_memory() - before < MORE_MEMORY


@pytest.mark.parametrize("pattern", TOO_MANY_FIELDS)
def test_the_refusal_says_how_many_fields_a_message_may_have(pattern: str) -> None:
    with pytest.raises(InvalidInput, match=f"more than ({MAX_FIELDS}|{MAX_OUTER_FIELDS}) fields"):
        parse(TOO_MANY_FIELDS[pattern])


@pytest.mark.parametrize("pattern", ["empty inputs", "unknown groups", "packed numbers"])
def test_a_stream_refuses_such_a_message_and_goes_on(patient: Running, pattern: str) -> None:
    call = patient.channel.stream_stream(
        f"{SERVICE}/ModelStreamInfer",
        response_deserializer=oip.ModelStreamInferResponse.FromString,
    )
    first, second = call(iter((ALL[pattern], fitting())), timeout=PATIENCE)
    assert first.error_message
    assert not second.error_message


@pytest.mark.parametrize(
    "method",
    [
        f"{SERVICE}/RepositoryModelLoad",
        f"{SERVICE}/RepositoryIndex",
        f"{SERVICE}/ModelMetadata",
        f"{SERVICE}/LogSettings",
        f"{SERVICE}/SystemSharedMemoryRegister",
        f"{SERVICE}/ServerLive",
        "/inferd.v1.ServerService/Status",
        "/grpc.health.v1.Health/Check",
    ],
)
def test_every_method_bounds_the_fields_of_its_message(patient: Running, method: str) -> None:
    before = most_memory()
    for message in (filled(part(3, b"")), filled(field(15, 0, b"\0"))):
        call = partial(patient.channel.unary_unary(method), message, timeout=PATIENCE)
        error = failure(call)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "fields" in error.details()
    assert most_memory() - before < MORE_MEMORY


@pytest.mark.parametrize(
    "method",
    [
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ],
)
def test_every_stream_bounds_the_fields_of_its_messages(patient: Running, method: str) -> None:
    call = patient.channel.stream_stream(method)
    error = failure(lambda: list(call(iter((filled(part(15, b"")),)), timeout=PATIENCE)))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "fields" in error.details()


def test_as_many_fields_as_are_permitted_are_read() -> None:
    strings = part(5, part(1, b"text") + part(5, part(8, b"") * (MAX_FIELDS - 3)))
    request, _ = parse(strings)
    assert len(request.inputs[0].contents.bytes_contents) == MAX_FIELDS - 3
    with pytest.raises(InvalidInput, match="fields"):
        parse(strings + part(15, b""))
    raw = part(7, b"1") * MAX_OUTER_FIELDS
    assert len(parse(raw)[1]) == MAX_OUTER_FIELDS
    with pytest.raises(InvalidInput, match="fields"):
        parse(raw + part(1, b"m"))


def test_a_large_message_of_few_fields_is_read(patient: Running) -> None:
    request = health_pb2.HealthCheckRequest(service="s" * SIZE)
    assert parse_message(health_pb2.HealthCheckRequest, request.SerializeToString()) == request
    elements = part(5, part(5, part(3, bytes(SIZE))))
    assert len(parse(elements)[0].inputs[0].contents.int64_contents) == SIZE


def units() -> st.SearchStrategy[bytes]:
    """Fields of every kind, right and wrong, one in the other."""
    numbers = st.integers(1, 9)
    leaf = st.one_of(
        st.builds(lambda n, v: field(n, 0, v), numbers, st.sampled_from([b"\0", b"\x80\0"])),
        st.builds(lambda n: field(n, 1, bytes(8)), numbers),
        st.builds(lambda n: field(n, 5, bytes(4)), numbers),
        st.builds(lambda n: field(n, 3, b"") + field(n, 4, b""), numbers),
        st.builds(part, numbers, st.binary(max_size=3)),
        st.binary(min_size=1, max_size=3),
    )
    return st.recursive(
        leaf,
        lambda inner: st.builds(lambda n, u, k: part(n, u * k), numbers, inner, st.integers(0, 9)),
    )


def test_what_passes_the_count_becomes_few_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """With small bounds, so that thousands of messages can be tried."""
    monkeypatch.setattr(field_count, "MAX_FIELDS", 100)
    monkeypatch.setattr(field_count, "UNCOUNTED_BYTES", 0)

    @settings(max_examples=1000, deadline=None)
    @given(st.lists(units(), max_size=8).map(b"".join), st.integers(1, 60))
    def tried(unit: bytes, times: int) -> None:
        message = unit * times
        try:
            check_fields(message, REQUEST)
            request = oip.ModelInferRequest.FromString(message)
        except (InvalidInput, DecodeError):
            return
        assert objects(request) <= 100

    tried()


def objects(message: oip.ModelInferRequest) -> int:
    """How many things the generated class has made of a request."""
    return sum(
        1
        + len(tensor.shape)
        + len(tensor.parameters)
        + len(tensor.contents.bytes_contents)
        + tensor.HasField("contents")
        for tensor in message.inputs
    ) + sum(map(len, (message.outputs, message.parameters, message.raw_input_contents)))


def text(elements: int, model: str = "words") -> oip.ModelInferRequest:
    """Return a request with so many empty strings, which are zeros as they travel."""
    request = oip.ModelInferRequest(model_name=model, raw_input_contents=[bytes(4 * elements)])
    request.inputs.add(name="INPUT0", datatype="BYTES", shape=[1, elements])
    return request


ARRANGEMENTS = {"inline": lambda: InlineLoop(time.monotonic), "threads": lambda: None}


@pytest.fixture(params=ARRANGEMENTS)
def words(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    proto = models.identity("BYTES", dims=("batch", "count"))
    folder = models.repository(tmp_path, {"words": proto, "simple": models.add_sub()})
    with running(folder, inline=ARRANGEMENTS[request.param]()) as server:
        yield server


def test_more_strings_than_may_be_are_refused_before_they_are_read(words: Running) -> None:
    before = most_memory()
    error = words.refused(text(10_000_000))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"10000000 elements of BYTES; at most {MAX_TEXT_ELEMENTS} are read" in error.details()
    assert most_memory() - before < MORE_MEMORY
    assert_still_serves(words)


def test_nobody_waits_while_many_strings_are_read(words: Running) -> None:
    reads = threading.Event()
    assert words.server is not None
    words.server.endpoint.infer._decoding.submit(0, reads.wait)
    many = words.stub.ModelInfer.future(text(MOST_TEXT + 1), timeout=PATIENCE)
    few = words.infer(text(MOST_TEXT))
    assert list(few.outputs[0].shape) == [1, MOST_TEXT]
    assert_still_serves(words)
    assert not many.done()
    reads.set()
    assert list(many.result(PATIENCE).outputs[0].shape) == [1, MOST_TEXT + 1]


def test_what_waits_to_be_read_is_bounded(words: Running) -> None:
    reads = threading.Event()
    assert words.server is not None
    words.server.endpoint.infer._decoding.submit(2**40, reads.wait)
    error = words.refused(text(MOST_TEXT + 1))
    reads.set()
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "requests with much text wait to be read" in error.details()
    assert list(words.infer(text(MOST_TEXT)).outputs[0].shape) == [1, MOST_TEXT]
