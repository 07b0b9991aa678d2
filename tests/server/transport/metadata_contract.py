"""Metadata that a server sends, and errors for machines. A class per transport inherits it."""

from __future__ import annotations

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from inferd_server.errors import EngineFailure, InvalidInput, QueueFull
from inferd_server.transport.call import Call, Metadata, Routes
from inferd_server.transport.status import DETAILS_KEY, ERROR_KEY, PUSHBACK_KEY

from tests.server.serving import failure
from tests.server.transport.client import PATIENCE, Held, Recorders, Requests, Serve
from tests.server.transport.contract import PATH, TransportContract, assert_still_serves, holding

SENT: Metadata = (("a-key", "one"), ("a-bin", b"\x00\xff"), ("a-key", "two"))
UNSENDABLE: list[Metadata] = [
    (("Capital", "x"),),
    (("grpc-status", "0"),),
    ((":path", "x"),),
    (("", "x"),),
    (("a-key", "\xe4"),),
    (("a-key", "line\nbreak"),),
    (("a-key", b"bytes"),),
    (("a-bin", "text"),),
    (("a-key", "x" * 5000),),
]


def ours(metadata: object) -> list[tuple[str, str | bytes]]:
    return [(key, value) for key, value in metadata if key.startswith("a-")]  # type: ignore[attr-defined]


def details(error: grpc.RpcError) -> tuple[Status, ErrorInfo]:
    status = Status.FromString(dict(error.trailing_metadata())[DETAILS_KEY])
    info = ErrorInfo()
    assert len(status.details) == 1
    assert status.details[0].Unpack(info)
    return status, info


class MetadataContract(TransportContract):
    """Ahead of the answer, behind it, and in the place of it."""

    def test_metadata_may_come_ahead_of_an_answer_and_behind_it(self, serve: Serve) -> None:
        held = Held()
        with serve(holding(held)) as client:
            # The same on the wire as a unary call, but this client shows what is here so far.
            answers = client.channel.unary_stream(PATH)(b"", timeout=PATIENCE)
            call = held.next()
            call.send_initial_metadata(SENT)
            assert ours(answers.initial_metadata()) == list(SENT)
            call.reply((b"answer",), SENT[:2])
            assert list(answers) == [b"answer"]
            assert ours(answers.trailing_metadata()) == list(SENT[:2])

    def test_each_alone(self, serve: Serve) -> None:
        def ahead(call: Call) -> None:
            call.send_initial_metadata(SENT)
            call.reply((b"",))

        def behind(call: Call) -> None:
            call.reply((b"",), SENT)

        with serve(Routes(unary={PATH: ahead, "/test.Service/Behind": behind})) as client:
            _, call = client.unary(PATH).with_call(b"", timeout=PATIENCE)
            assert ours(call.initial_metadata()) == list(SENT)
            assert ours(call.trailing_metadata()) == []
            _, call = client.unary("/test.Service/Behind").with_call(b"", timeout=PATIENCE)
            assert ours(call.initial_metadata()) == []
            assert ours(call.trailing_metadata()) == list(SENT)

    def test_initial_metadata_counts_once_and_not_after_the_answer(self, serve: Serve) -> None:
        def handler(call: Call) -> None:
            call.send_initial_metadata(SENT[:1])
            call.send_initial_metadata(SENT)
            call.reply((b"",))
            call.send_initial_metadata(SENT)

        with serve(Routes(unary={PATH: handler})) as client:
            for _ in range(3):
                _, call = client.unary(PATH).with_call(b"", timeout=PATIENCE)
                assert ours(call.initial_metadata()) == list(SENT[:1])

    def test_an_error_may_follow_initial_metadata(self, serve: Serve) -> None:
        def handler(call: Call) -> None:
            call.send_initial_metadata(SENT)
            call.fail(InvalidInput("no"))

        with serve(Routes(unary={PATH: handler})) as client:
            error = failure(lambda: client.call(PATH))
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert ours(error.initial_metadata()) == list(SENT)

    @pytest.mark.parametrize("metadata", UNSENDABLE)
    def test_what_cannot_be_sent_raises_and_leaves_the_call_open(
        self, serve: Serve, metadata: Metadata
    ) -> None:
        held = Held()
        with serve(holding(held)) as client:
            future = client.unary(PATH).future(b"")
            call = held.next()
            with pytest.raises(ValueError, match="metadata"):
                call.send_initial_metadata(metadata)
            with pytest.raises(ValueError, match="metadata"):
                call.reply((b"",), metadata)
            call.reply((b"still open",))
            assert future.result(PATIENCE) == b"still open"

    def test_as_much_metadata_as_may_be_sent_arrives(self, serve: Serve) -> None:
        large: Metadata = (("a-key", "x" * 2000), ("a-bin", b"\xff" * 2000))

        def handler(call: Call) -> None:
            call.send_initial_metadata(large)
            call.reply((b"",), large)

        with serve(Routes(unary={PATH: handler})) as client:
            _, call = client.unary(PATH).with_call(b"", timeout=PATIENCE)
            assert ours(call.initial_metadata()) == list(large)
            assert ours(call.trailing_metadata()) == list(large)

    def test_a_stream_sends_metadata_ahead_and_behind(self, serve: Serve) -> None:
        recorders = Recorders()
        with serve(Routes(streams={PATH: recorders})) as client:
            answers = client.stream(PATH, iter(Requests(b"1")))
            stream = recorders.next().stream
            stream.send_initial_metadata(SENT)
            assert ours(answers.initial_metadata()) == list(SENT)
            stream.send_initial_metadata(SENT[:1])
            stream.send((b"1",))
            with pytest.raises(ValueError, match="metadata"):
                stream.finish(UNSENDABLE[0])
            stream.finish(SENT[:2])
            assert list(answers) == [b"1"]
            assert ours(answers.trailing_metadata()) == list(SENT[:2])

    def test_a_stream_without_messages_sends_metadata(self, serve: Serve) -> None:
        recorders = Recorders()
        with serve(Routes(streams={PATH: recorders})) as client:
            answers = client.stream(PATH, iter(()))
            stream = recorders.next().stream
            stream.send_initial_metadata(SENT)
            stream.fail(QueueFull("full"))
            error = failure(lambda: next(answers))
            assert ours(answers.initial_metadata()) == list(SENT)
            assert details(error)[1].reason == "QUEUE_FULL"

    def test_an_error_says_for_machines_what_it_says_for_people(self, serve: Serve) -> None:
        with serve(Routes(unary={PATH: lambda call: call.fail(QueueFull("full"))})) as client:
            error = failure(lambda: client.call(PATH))
            status, info = details(error)
            assert status.code == error.code().value[0]
            assert status.message == error.details() == "full"
            assert (info.reason, info.domain, dict(info.metadata)) == ("QUEUE_FULL", "inferd", {})

    def test_an_error_may_say_a_reason_of_its_own_and_facts(self, serve: Serve) -> None:
        refusal = InvalidInput("too many", reason="TOO_MANY_ROWS", facts={"limit": "32"})
        with serve(Routes(unary={PATH: lambda call: call.fail(refusal)})) as client:
            _, info = details(failure(lambda: client.call(PATH)))
            assert (info.reason, dict(info.metadata)) == ("TOO_MANY_ROWS", {"limit": "32"})

    @pytest.mark.parametrize(("seconds", "wait"), [(1.5, 1500), (0.0004, 1), (0.0, 0), (-2.0, 0)])
    def test_an_error_says_when_to_try_again(self, serve: Serve, seconds: float, wait: int) -> None:
        full = QueueFull("full", retry_after=seconds)
        with serve(Routes(unary={PATH: lambda call: call.fail(full)})) as client:
            trailing = dict(failure(lambda: client.call(PATH)).trailing_metadata())
            assert trailing[PUSHBACK_KEY] == str(wait)
            info, retry = Status.FromString(trailing[DETAILS_KEY]).details
            assert info.Is(ErrorInfo.DESCRIPTOR)
            unpacked = RetryInfo()
            assert retry.Unpack(unpacked)
            assert unpacked.retry_delay.ToMilliseconds() == wait

    @pytest.mark.parametrize("letter", ["a", "\xe4", "\U0001f600"])
    def test_however_long_an_error_is_it_arrives_with_all_its_parts(
        self, serve: Serve, letter: str
    ) -> None:
        long = EngineFailure(letter * 10_000, facts={"much": letter * 10_000})
        routes = Routes(
            unary={PATH: lambda call: call.fail(long), "/test.Service/Echo": echo_request}
        )
        with serve(routes) as client:
            error = failure(lambda: client.call(PATH))
            assert error.code() == grpc.StatusCode.INTERNAL
            assert dict(error.trailing_metadata())[ERROR_KEY] == "EngineFailure"
            status, info = details(error)
            assert status.message == error.details()
            assert status.message.startswith(letter * 100)
            assert info.reason == "ENGINE_FAILURE"
            assert_still_serves(client)


def echo_request(call: Call) -> None:
    call.reply((call.request,))
