"""Compressed requests: what they become is bounded. A class per transport inherits it."""

from __future__ import annotations

import gzip
import os

import grpc
import pytest
from inferd_server.transport.call import Routes
from inferd_server.transport.compression import ANY_RATIO_BYTES

from tests.server.serving import failure
from tests.server.transport.client import PATIENCE, Client, Recorders
from tests.server.transport.contract import LIMIT, PATH, TransportContract, echo
from tests.server.transport.stream_contract import echo_stream

STREAM = "/test.Service/S"
KINDS = [grpc.Compression.Gzip, grpc.Compression.Deflate]
ROUTES = Routes(unary={PATH: echo}, streams={STREAM: Recorders(echo_stream)})
LARGE = 8 << 20


def sent(client: Client, message: bytes, kind: grpc.Compression) -> bytes:
    """The answer to a compressed message."""
    return client.call(PATH, message, compression=kind)


def streamed(client: Client, message: bytes, kind: grpc.Compression) -> bytes:
    """The answer of a stream to one compressed message."""
    method = client.channel.stream_stream(STREAM)
    answers = method(iter((message,)), timeout=PATIENCE, compression=kind)
    answer: bytes = next(answers)
    answers.cancel()
    return answer


class CompressionContract(TransportContract):
    """Decompressed within bounds, or refused by a sentence that names the bound."""

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("size", [0, 1, 1000, ANY_RATIO_BYTES - 2])
    def test_a_compressed_message_arrives_as_its_caller_wrote_it(
        self, kind: grpc.Compression, size: int
    ) -> None:
        with self.serve_with()(ROUTES) as client:
            assert sent(client, bytes(size), kind) == bytes(size)
            random = os.urandom(min(size, 1000))
            assert sent(client, random, kind) == random
            assert streamed(client, random, kind) == b"<%b>" % random

    @pytest.mark.parametrize("kind", KINDS)
    def test_one_that_grows_beyond_the_ratio_is_refused(self, kind: grpc.Compression) -> None:
        serve = self.serve_with(max_message_bytes=LARGE, max_compression_ratio=100)
        with serve(ROUTES) as client:
            for attempt in (sent, streamed):
                error = failure(lambda attempt=attempt: attempt(client, bytes(LARGE - 8), kind))
                assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
                assert "max_compression_ratio" in error.details()
            assert sent(client, b"still here", kind) == b"still here"

    @pytest.mark.parametrize("kind", KINDS)
    def test_one_that_becomes_larger_than_a_message_may_be_is_refused(
        self, kind: grpc.Compression
    ) -> None:
        with self.serve_with(max_compression_ratio=0)(ROUTES) as client:
            for attempt in (sent, streamed):
                error = failure(lambda attempt=attempt: attempt(client, bytes(LIMIT + 1), kind))
                assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
                assert "max_message_bytes" in error.details()
            assert sent(client, b"still here", kind) == b"still here"

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_server_may_take_no_compressed_messages(self, kind: grpc.Compression) -> None:
        with self.serve_with(accept_compressed=False)(ROUTES) as client:
            for attempt in (sent, streamed):
                error = failure(lambda attempt=attempt: attempt(client, bytes(1000), kind))
                assert error.code() == grpc.StatusCode.UNIMPLEMENTED
                assert "accept_compressed" in error.details()
            assert client.call(PATH, b"as it is") == b"as it is"

    @pytest.mark.parametrize(
        "damaged",
        [
            gzip.compress(b"text", mtime=0)[:-3],
            gzip.compress(b"text", mtime=0) + b"more",
            b"\x1f\x8b\x08\xff\xff\xff",
        ],
    )
    def test_a_damaged_one_is_refused(self, damaged: bytes) -> None:
        with self.serve_with()(ROUTES) as client:
            error = failure(lambda: client.call(PATH, damaged))
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert "damaged" in error.details()

    def test_a_message_that_only_begins_like_a_compressed_one_is_left_alone(self) -> None:
        with self.serve_with(accept_compressed=False)(ROUTES) as client:
            for message in (b"\x78\x9c\xff\xff\xff\xff", b"\x78\x02", b"\x1f", b"\x78"):
                assert client.call(PATH, message) == message
