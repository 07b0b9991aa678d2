"""What every transport must do with streams. A class per transport inherits it."""

from __future__ import annotations

import queue
import threading

import grpc
import pytest
from inferd_server.errors import EngineFailure, InvalidInput
from inferd_server.transport.call import Routes, Stream
from inferd_server.transport.status import ERROR_KEY

from tests.server.serving import failure
from tests.server.transport.client import (
    PATIENCE,
    Recorder,
    Recorders,
    Requests,
    Serve,
)
from tests.server.transport.contract import (
    LIMIT,
    MAX_STREAM_MESSAGES,
    PATH,
    TransportContract,
    assert_still_serves,
    echo,
)


def echo_stream(stream: Stream, data: bytes) -> None:
    stream.send((b"<", data, b">"))


def routes(recorders: Recorders) -> Routes:
    return Routes(unary={"/test.Service/Echo": echo}, streams={PATH: recorders})


class Echoing(Recorder):
    """Answers each message and finishes after the last one."""

    def half_closed(self) -> None:
        self.stream.finish()


class StreamContract(TransportContract):
    """Many requests, many answers."""

    def test_every_message_is_answered_in_order_and_the_end_is_ok(self, serve: Serve) -> None:
        sent = [str(i).encode() for i in range(50)]
        echoing = Routes(streams={PATH: lambda stream: Echoing(stream, echo_stream)})
        with serve(echoing) as client:
            answers = client.stream(PATH, iter(sent))
            assert list(answers) == [b"<" + message + b">" for message in sent]
            assert answers.code() == grpc.StatusCode.OK

    def test_an_empty_message_is_a_message(self, serve: Serve) -> None:
        recorders = Recorders(lambda stream, data: stream.send((b"",)))
        with serve(routes(recorders)) as client:
            requests = Requests(b"")
            answers = client.stream(PATH, iter(requests))
            assert next(answers) == b""
            answers.cancel()

    def test_answers_come_while_requests_are_still_sent(self, serve: Serve) -> None:
        with serve(routes(Recorders(echo_stream))) as client:
            requests = Requests(b"1")
            answers = client.stream(PATH, iter(requests))
            assert next(answers) == b"<1>"
            requests.send(b"2")
            assert next(answers) == b"<2>"
            answers.cancel()

    def test_a_stream_goes_on_after_the_caller_half_closed(self, serve: Serve) -> None:
        recorders = Recorders()
        with serve(routes(recorders)) as client:
            answers = client.stream(PATH, iter([b"only"]))
            recorder = recorders.next()
            assert recorder.closed.wait(PATIENCE)
            for number in range(10):
                recorder.stream.send((str(number).encode(),))
            recorder.stream.finish()
            assert list(answers) == [str(number).encode() for number in range(10)]
            assert recorder.over.get(timeout=PATIENCE) is False

    def test_messages_may_be_sent_from_other_threads(self, serve: Serve) -> None:
        recorders = Recorders()
        with serve(routes(recorders)) as client:
            answers = client.stream(PATH, iter([b"only"]))
            stream = recorders.next().stream
            threads = [
                threading.Thread(target=stream.send, args=((bytes([i]) * 3,),)) for i in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            stream.finish()
            assert sorted(answers) == [bytes([i]) * 3 for i in range(8)]

    def test_a_failure_comes_after_everything_that_was_sent(self, serve: Serve) -> None:
        recorders = Recorders()
        with serve(routes(recorders)) as client:
            answers = client.stream(PATH, iter(Requests(b"only")))
            recorder = recorders.next()
            for number in range(5):
                recorder.stream.send((bytes([number]),))
            recorder.stream.fail(InvalidInput("no more of this"))
            recorder.stream.send((b"ignored",))
            assert [next(answers) for _ in range(5)] == [bytes([i]) for i in range(5)]
            error = failure(lambda: next(answers))
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert error.details() == "no more of this"
            assert dict(error.trailing_metadata())[ERROR_KEY] == "InvalidInput"
            assert recorder.over.get(timeout=PATIENCE) is False

    def test_cancelling_ends_the_receiver_once(self, serve: Serve) -> None:
        recorders = Recorders()
        with serve(routes(recorders)) as client:
            answers = client.stream(PATH, iter(Requests(b"only")))
            recorder = recorders.next()
            assert recorder.messages.get(timeout=PATIENCE) == b"only"
            assert not recorder.stream.cancelled
            answers.cancel()
            assert recorder.over.get(timeout=PATIENCE) is True
            recorder.stream.send((b"too late",))
            recorder.stream.fail(EngineFailure())
            assert_still_serves(client)
            assert recorder.over.empty()

    @pytest.mark.parametrize("sent_unasked", [0, 3 * MAX_STREAM_MESSAGES])
    def test_a_receiver_that_answers_nothing_gets_only_so_many_messages(
        self, serve: Serve, sent_unasked: int
    ) -> None:
        recorders = Recorders()
        with serve(routes(recorders)) as client:
            requests = Requests()
            answers = client.stream(PATH, iter(requests))
            recorder = recorders.next()
            for _ in range(sent_unasked):
                recorder.stream.send((b"unasked",))
                assert next(answers) == b"unasked"
            # The transport knows by then, too, that they are out.
            assert_still_serves(client)
            for number in range(3 * MAX_STREAM_MESSAGES):
                requests.send(bytes([number]))
            for number in range(MAX_STREAM_MESSAGES):
                assert recorder.messages.get(timeout=PATIENCE) == bytes([number])
            # A round trip on the same connection, behind the messages.
            assert_still_serves(client)
            assert recorder.messages.empty()
            recorder.stream.send((b"one",))
            assert next(answers) == b"one"
            assert recorder.messages.get(timeout=PATIENCE) == bytes([MAX_STREAM_MESSAGES])
            assert_still_serves(client)
            assert recorder.messages.empty()
            answers.cancel()

    def test_one_request_may_have_many_answers(self, serve: Serve) -> None:
        recorders = Recorders()
        with serve(routes(recorders)) as client:
            answers = client.channel.unary_stream(PATH)(b"watch", timeout=PATIENCE)
            recorder = recorders.next()
            assert recorder.messages.get(timeout=PATIENCE) == b"watch"
            for number in range(3 * MAX_STREAM_MESSAGES):
                recorder.stream.send((bytes([number]),))
                assert next(answers) == bytes([number])
            answers.cancel()
            assert recorder.over.get(timeout=PATIENCE) is True

    def test_metadata_peer_and_deadline_are_known_before_any_message(self, serve: Serve) -> None:
        recorders = Recorders()
        with serve(routes(recorders)) as client:
            answers = client.channel.stream_stream(PATH)(
                iter(Requests()), timeout=PATIENCE, metadata=(("a-bin", b"\xff"),)
            )
            stream = recorders.next().stream
            assert ("a-bin", b"\xff") in list(stream.metadata)
            assert stream.peer.startswith("ipv4:127.0.0.1:")
            assert stream.deadline is not None
            answers.cancel()

    def test_a_receiver_that_raises_fails_its_stream_alone(self, serve: Serve) -> None:
        def broken(stream: Stream, data: bytes) -> None:
            if data == b"bad":
                raise ValueError("secret detail")
            echo_stream(stream, data)

        recorders = Recorders(broken)
        with serve(routes(recorders)) as client:
            good_requests = Requests(b"1")
            good = client.stream(PATH, iter(good_requests))
            assert next(good) == b"<1>"
            bad = client.stream(PATH, iter(Requests(b"2", b"bad")))
            assert next(bad) == b"<2>"
            error = failure(lambda: next(bad))
            assert error.code() == grpc.StatusCode.INTERNAL
            assert "secret" not in error.details()
            good_requests.send(b"3")
            assert next(good) == b"<3>"
            good.cancel()
            for _ in range(2):
                recorders.next().over.get(timeout=PATIENCE)

    def test_a_handler_that_raises_fails_its_stream_alone(self, serve: Serve) -> None:
        def broken(stream: Stream) -> Recorder:
            raise ValueError("secret detail")

        table = Routes(unary={"/test.Service/Echo": echo}, streams={PATH: broken})
        with serve(table) as client:
            error = failure(lambda: next(client.stream(PATH, iter(Requests(b"1")))))
            assert error.code() == grpc.StatusCode.INTERNAL
            assert "secret" not in error.details()
            assert_still_serves(client)

    def test_a_message_above_the_limit_ends_its_stream_and_its_receiver(self, serve: Serve) -> None:
        recorders = Recorders(echo_stream)
        with serve(routes(recorders)) as client:
            requests = Requests(b"1")
            answers = client.stream(PATH, iter(requests))
            assert next(answers) == b"<1>"
            requests.send(bytes(LIMIT + 1))
            error = failure(lambda: next(answers))
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            recorders.next().over.get(timeout=PATIENCE)
            assert_still_serves(client)

    def test_an_answer_above_the_limit_ends_its_stream_and_its_receiver(self, serve: Serve) -> None:
        recorders = Recorders(lambda stream, data: stream.send((bytes(LIMIT + 1),)))
        with serve(routes(recorders)) as client:
            answers = client.stream(PATH, iter(Requests(b"1")))
            error = failure(lambda: next(answers))
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            recorders.next().over.get(timeout=PATIENCE)
            assert_still_serves(client)

    def test_a_caller_that_does_not_read_holds_only_its_own_stream(self, serve: Serve) -> None:
        """Answers beyond the connection's window wait, and the other calls go on."""
        seen: queue.Queue[bytes] = queue.Queue()

        def large(stream: Stream, data: bytes) -> None:
            seen.put(data)
            stream.send((bytes(LIMIT // 2),))

        recorders = Recorders(large)
        with serve(routes(recorders)) as client:
            answers = client.stream(PATH, iter([b"x"] * (4 * MAX_STREAM_MESSAGES)))
            seen.get(timeout=PATIENCE)
            for _ in range(5):
                assert_still_serves(client)
            answers.cancel()
            assert recorders.next().over.get(timeout=PATIENCE) is True
