"""What every transport must do with unary calls. A class per transport inherits it."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import grpc
import pytest
from inferd_server import errors
from inferd_server.errors import InferdError
from inferd_server.transport.call import Call, Routes, Transport
from inferd_server.transport.options import TransportOptions
from inferd_server.transport.selftest import selftest
from inferd_server.transport.status import CODES, ERROR_KEY

from tests.server.serving import failure
from tests.server.transport.client import PATIENCE, Client, Held, Serve, serving

PATH = "/test.Service/Method"
KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, InferdError)
]
LIMIT = 1024 * 1024
MAX_STREAM_MESSAGES = 4
OPTIONS = TransportOptions(max_message_bytes=LIMIT, max_stream_messages=MAX_STREAM_MESSAGES)


def echo(call: Call) -> None:
    call.reply((call.request,))


def holding(held: Held) -> Routes:
    return Routes(unary={PATH: held, "/test.Service/Echo": echo})


def assert_still_serves(client: Client) -> None:
    assert client.call("/test.Service/Echo", b"still here") == b"still here"


class TransportContract:
    """How to make one, and how to serve with it."""

    def make(self, options: TransportOptions = OPTIONS) -> Transport:
        raise NotImplementedError

    def serve_with(self, **options: object) -> Serve:
        """Serve with some options changed."""
        return serving(lambda: self.make(replace(OPTIONS, **options)))

    @pytest.fixture
    def serve(self) -> Serve:
        return serving(self.make)


class UnaryContract(TransportContract):
    """One request, one answer."""

    def test_the_answer_is_the_parts_joined(self, serve: Serve) -> None:
        def handler(call: Call) -> None:
            call.reply((b"<", memoryview(call.request), bytearray(b">"), b""))

        with serve(Routes(unary={PATH: handler})) as client:
            assert client.call(PATH, b"abc") == b"<abc>"
            assert client.call(PATH, b"") == b"<>"

    def test_a_reply_may_come_from_another_thread(self, serve: Serve) -> None:
        held = Held()
        with serve(holding(held)) as client:
            future = client.unary(PATH).future(b"x")
            held.next().reply((b"from the test's thread",))
            assert future.result(PATIENCE) == b"from the test's thread"

    def test_calls_are_answered_in_any_order(self, serve: Serve) -> None:
        held = Held()
        with serve(holding(held)) as client:
            futures = {bytes([i]): client.unary(PATH).future(bytes([i])) for i in range(20)}
            for call in reversed([held.next() for _ in futures]):
                call.reply((call.request * 2,))
            assert {r: f.result(PATIENCE) for r, f in futures.items()} == {
                r: r * 2 for r in futures
            }

    @pytest.mark.parametrize("kind", KINDS)
    def test_an_error_travels_as_code_class_and_sentence(
        self, serve: Serve, kind: type[InferdError]
    ) -> None:
        with serve(Routes(unary={PATH: lambda call: call.fail(kind("a sentence"))})) as client:
            error = failure(lambda: client.call(PATH))
            known = [CODES[k] for k in kind.__mro__ if k in CODES]
            assert error.code() == (known[0] if known else grpc.StatusCode.INTERNAL)
            assert error.details() == "a sentence"
            assert dict(error.trailing_metadata())[ERROR_KEY] == kind.__name__

    @pytest.mark.parametrize("letter", ["a", "\xe4", "\U0001f600", "\ud800", "\n"])
    def test_a_sentence_too_long_for_a_header_arrives_cut(self, serve: Serve, letter: str) -> None:
        sentence = "input " + letter * 100_000
        handler = Routes(unary={PATH: lambda call: call.fail(errors.InvalidInput(sentence))})
        with serve(handler) as client:
            error = failure(lambda: client.call(PATH))
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert error.details().startswith("input ")

    def test_the_first_answer_wins(self, serve: Serve) -> None:
        def twice(call: Call) -> None:
            call.reply((b"first",))
            call.fail(errors.EngineFailure())
            call.reply((b"third",))

        def fails_first(call: Call) -> None:
            call.fail(errors.QueueFull("first"))
            call.reply((b"second",))

        with serve(Routes(unary={PATH: twice, "/test.Service/Fails": fails_first})) as client:
            assert client.call(PATH) == b"first"
            assert failure(lambda: client.call("/test.Service/Fails")).details() == "first"

    def test_an_unknown_method_is_unimplemented(self, serve: Serve) -> None:
        with serve(Routes(unary={PATH: echo})) as client:
            error = failure(lambda: client.call("/test.Service/Other"))
            assert error.code() == grpc.StatusCode.UNIMPLEMENTED

    def test_metadata_arrives_in_order_text_as_text_and_binary_as_bytes(self, serve: Serve) -> None:
        held = Held()
        sent = (("a-key", "one"), ("a-bin", b"\x00\xff"), ("a-key", "two"))
        with serve(holding(held)) as client:
            future = client.unary(PATH).future(b"", metadata=sent)
            call = held.next()
            assert [item for item in call.metadata if item[0].startswith("a-")] == list(sent)
            call.reply(())
            assert future.result(PATIENCE) == b""

    def test_the_peer_is_the_callers_address(self, serve: Serve) -> None:
        handler = Routes(unary={PATH: lambda call: call.reply((call.peer.encode(),))})
        with serve(handler) as client:
            assert client.call(PATH).startswith(b"ipv4:127.0.0.1:")

    def test_the_deadline_is_monotonic_time(self, serve: Serve) -> None:
        held = Held()
        with serve(holding(held)) as client:
            before = time.monotonic()
            future = client.unary(PATH).future(b"", timeout=100)
            deadline = held.next().deadline
            future.cancel()
            assert deadline is not None
            # Time stands in the header in whole units, and the call takes its way.
            assert before + 98 < deadline < time.monotonic() + 101

    def test_a_call_without_a_deadline_has_none(self, serve: Serve) -> None:
        held = Held()
        with serve(holding(held)) as client:
            future = client.unary(PATH).future(b"")
            assert held.next().deadline is None
            future.cancel()

    def test_cancelling_calls_back_once_and_is_remembered(self, serve: Serve) -> None:
        held, told = Held(), threading.Semaphore(0)
        with serve(holding(held)) as client:
            future = client.unary(PATH).future(b"")
            call = held.next()
            call.on_cancel(told.release)
            assert not call.cancelled
            future.cancel()
            assert told.acquire(timeout=PATIENCE)
            assert call.cancelled
            call.reply((b"too late",))
            assert_still_serves(client)
            assert not told.acquire(blocking=False)

    def test_asking_for_cancellation_after_it_calls_back_at_once(self, serve: Serve) -> None:
        held, told = Held(), threading.Event()
        with serve(holding(held)) as client:
            future = client.unary(PATH).future(b"")
            call = held.next()
            call.on_cancel(told.set)
            future.cancel()
            assert told.wait(PATIENCE)
            late = threading.Event()
            call.on_cancel(late.set)
            assert late.is_set()

    def test_a_passed_deadline_cancels(self, serve: Serve) -> None:
        held, told = Held(), threading.Event()
        with serve(holding(held)) as client:
            future = client.unary(PATH).future(b"", timeout=0.2)
            held.next().on_cancel(told.set)
            assert told.wait(PATIENCE)
            assert future.exception(PATIENCE).code() == grpc.StatusCode.DEADLINE_EXCEEDED

    def test_an_answered_call_is_not_cancelled(self, serve: Serve) -> None:
        held, told = Held(), threading.Event()
        with serve(holding(held)) as client:
            future = client.unary(PATH).future(b"")
            call = held.next()
            call.on_cancel(told.set)
            call.reply((b"",))
            assert future.result(PATIENCE) == b""
        assert not told.is_set()
        assert not call.cancelled

    def test_a_handler_that_raises_fails_its_call_alone_and_tells_no_details(
        self, serve: Serve
    ) -> None:
        def broken(call: Call) -> None:
            raise ValueError("secret detail")

        held = Held()
        routes = Routes(unary={PATH: held, "/test.Service/Broken": broken})
        with serve(routes) as client:
            other = client.unary(PATH).future(b"")
            call = held.next()
            error = failure(lambda: client.call("/test.Service/Broken"))
            assert error.code() == grpc.StatusCode.INTERNAL
            assert "secret" not in error.details()
            assert dict(error.trailing_metadata())[ERROR_KEY] == "EngineFailure"
            call.reply((b"fine",))
            assert other.result(PATIENCE) == b"fine"

    def test_a_request_above_the_limit_is_refused_and_the_server_goes_on(
        self, serve: Serve
    ) -> None:
        with serve(holding(Held())) as client:
            error = failure(lambda: client.call(PATH, bytes(LIMIT + 1)))
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert_still_serves(client)

    def test_an_answer_above_the_limit_is_an_error_and_the_server_goes_on(
        self, serve: Serve
    ) -> None:
        routes = Routes(
            unary={
                PATH: lambda call: call.reply((bytes(LIMIT), b"x")),
                "/test.Service/Echo": echo,
            }
        )
        with serve(routes) as client:
            error = failure(lambda: client.call(PATH))
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert_still_serves(client)

    def test_no_proxy_is_asked_for_this_very_host(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("no_proxy", "no_grpc_proxy", "grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        for name in ("http_proxy", "https_proxy"):
            # Nobody listens there.
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        assert selftest(self.make(TransportOptions())) == ""

    def test_a_message_of_exactly_the_limit_passes(self, serve: Serve) -> None:
        with serve(holding(Held())) as client:
            channel = grpc.insecure_channel(
                client.address, options=[("grpc.max_receive_message_length", -1)]
            )
            with channel:
                echoed = channel.unary_unary("/test.Service/Echo")(bytes(LIMIT), timeout=PATIENCE)
            assert len(echoed) == LIMIT
