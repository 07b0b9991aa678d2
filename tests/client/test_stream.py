from __future__ import annotations

import asyncio
import itertools
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

import grpc
import numpy as np
import pytest
from inferd.oip.v2 import inference_pb2 as pb
from inferd_client import AsyncClient, Client, InferdError, Request, StreamItem
from inferd_client.errors import (
    DeadlinePassed,
    InvalidInput,
    InvalidResponse,
    QueueFull,
    ShuttingDown,
    Unavailable,
)

from tests.fakes.oip_server import OipServer, echo

Run = Callable[..., list[StreamItem]]


def run_sync(
    server: OipServer,
    requests: Iterable[Request],
    *,
    limit: int = 64,
    count: int | None = None,
    timeout: float = math.inf,
) -> list[StreamItem]:
    with Client(server.address) as client:
        items = client.stream(requests, max_in_flight=limit, timeout=timeout)
        return list(itertools.islice(items, count))


def run_asyncio(
    server: OipServer,
    requests: Iterable[Request],
    *,
    limit: int = 64,
    count: int | None = None,
    timeout: float = math.inf,
) -> list[StreamItem]:
    async def scenario() -> list[StreamItem]:
        items: list[StreamItem] = []
        async with AsyncClient(server.address) as client:
            async for item in client.stream(requests, max_in_flight=limit, timeout=timeout):
                items.append(item)
                if len(items) == count:
                    break
        return items

    return asyncio.run(scenario())


@pytest.fixture(params=[run_sync, run_asyncio], ids=["sync", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    chosen: Run = request.param
    return chosen


def numbered(count: int) -> list[Request]:
    return [Request("m", {"x": [index]}, id=f"r{index}") for index in range(count)]


def failure(request: pb.ModelInferRequest, message: str, name: str) -> pb.ModelStreamInferResponse:
    response = pb.ModelInferResponse(id=request.id)
    if name:
        response.parameters["inferd_error"].string_param = name
    return pb.ModelStreamInferResponse(error_message=message, infer_response=response)


def test_answers_out_of_order_carry_their_own_id(server: OipServer, run: Run) -> None:
    def backwards(
        requests: Iterator[pb.ModelInferRequest],
    ) -> Iterator[pb.ModelStreamInferResponse]:
        for request in reversed(list(requests)):
            yield pb.ModelStreamInferResponse(infer_response=echo(request))

    server.stream_infer = backwards
    items = run(server, numbered(5))
    assert [(item.id, item.result()["x"].item()) for item in items] == [
        (f"r{index}", index) for index in (4, 3, 2, 1, 0)
    ]


def test_requests_without_an_id_are_given_different_ones(server: OipServer, run: Run) -> None:
    items = run(server, [Request("m", {"x": index}) for index in range(10)])
    assert len({item.id for item in items}) == 10


def test_error_of_one_request_leaves_the_stream_open(server: OipServer, run: Run) -> None:
    def second_fails(
        requests: Iterator[pb.ModelInferRequest],
    ) -> Iterator[pb.ModelStreamInferResponse]:
        for request in requests:
            if request.id == "r1":
                yield failure(request, "the queue is full", "QueueFull")
            else:
                yield pb.ModelStreamInferResponse(infer_response=echo(request))

    server.stream_infer = second_fails
    first, second, third = run(server, numbered(3))
    assert (first.error, third.error) == (None, None)
    assert isinstance(second.error, QueueFull)
    with pytest.raises(QueueFull, match="the queue is full"):
        second.result()


def test_error_without_name_or_id_belongs_to_the_only_request_waiting(
    server: OipServer, run: Run
) -> None:
    server.stream_infer = lambda requests: (
        failure(pb.ModelInferRequest(), f"no {request.model_name}", "") for request in requests
    )
    (item,) = run(server, numbered(1), limit=1)
    assert item.id == "r0"
    assert type(item.error) is InferdError


def test_answer_that_contradicts_itself_fails_its_request_only(server: OipServer, run: Run) -> None:
    def first_is_short(
        requests: Iterator[pb.ModelInferRequest],
    ) -> Iterator[pb.ModelStreamInferResponse]:
        for request in requests:
            response = echo(request)
            if request.id == "r0":
                response.raw_output_contents[0] = b"short"
            yield pb.ModelStreamInferResponse(infer_response=response)

    server.stream_infer = first_is_short
    first, second = run(server, numbered(2))
    assert isinstance(first.error, InvalidResponse)
    assert second.result()["x"] == [1]


def test_infinite_iterator_is_read_no_further_than_the_limit(server: OipServer, run: Run) -> None:
    taken = 0

    def endless() -> Iterator[Request]:
        nonlocal taken
        while True:
            taken += 1
            yield Request("m", {"x": taken})

    assert len(run(server, endless(), limit=3, count=10)) == 10
    # Ten answered and three in flight.
    assert taken <= 13


def test_exception_of_the_iterator_comes_after_the_answers_to_what_was_sent(
    server: OipServer, client: Client
) -> None:
    def breaks() -> Iterator[Request]:
        yield from numbered(2)
        raise LookupError("no more")

    items = client.stream(breaks())
    assert [next(items).id, next(items).id] == ["r0", "r1"]
    with pytest.raises(LookupError, match="no more"):
        next(items)


def test_exception_of_an_asyncio_iterator_comes_after_the_answers(server: OipServer) -> None:
    async def breaks() -> AsyncIterator[Request]:
        for request in numbered(2):
            yield request
        raise LookupError("no more")

    async def scenario() -> list[str]:
        async with AsyncClient(server.address) as client:
            items = aiter(client.stream(breaks()))
            seen = [(await anext(items)).id, (await anext(items)).id]
            with pytest.raises(LookupError, match="no more"):
                await anext(items)
            return seen

    assert asyncio.run(scenario()) == ["r0", "r1"]


def test_request_that_cannot_be_sent_is_raised(server: OipServer, run: Run) -> None:
    with pytest.raises(InvalidInput, match="complex"):
        run(server, [Request("m", {"x": np.zeros(1, np.complex128)})])


def test_id_in_flight_twice_is_refused(server: OipServer, run: Run) -> None:
    server.stream_infer = lambda requests: iter(
        [pb.ModelStreamInferResponse(infer_response=echo(request)) for request in list(requests)]
    )
    with pytest.raises(InvalidInput, match="'r0' is in flight"):
        run(server, [*numbered(1), *numbered(1)])


def test_answer_to_nothing_asked_ends_the_stream(server: OipServer, run: Run) -> None:
    server.stream_infer = lambda requests: (
        pb.ModelStreamInferResponse(infer_response={"id": "other"}) for _ in requests
    )
    with pytest.raises(InvalidResponse, match="'other'"):
        run(server, numbered(1))


def hears_one_and_leaves(
    requests: Iterator[pb.ModelInferRequest],
) -> Iterator[pb.ModelStreamInferResponse]:
    next(requests)
    yield from ()


def test_stream_that_ends_with_requests_unanswered_is_an_error(server: OipServer, run: Run) -> None:
    server.stream_infer = hears_one_and_leaves
    with pytest.raises(Unavailable, match="unanswered"):
        run(server, numbered(1))


def test_failure_of_the_whole_stream_is_raised_by_name(server: OipServer, run: Run) -> None:
    server.fail = (grpc.StatusCode.UNAVAILABLE, "bye", "ShuttingDown")
    with pytest.raises(ShuttingDown, match="bye"):
        run(server, numbered(1))


def test_timeout_bounds_the_whole_stream(server: OipServer, run: Run) -> None:
    server.stream_infer = lambda requests: (
        pb.ModelStreamInferResponse(infer_response=server.hold(request)) for request in requests
    )
    with pytest.raises(DeadlinePassed):
        run(server, numbered(1), timeout=0.05)


def test_stream_left_early_is_cancelled_at_the_server(server: OipServer, client: Client) -> None:
    ended = threading.Event()

    def notices(
        requests: Iterator[pb.ModelInferRequest],
    ) -> Iterator[pb.ModelStreamInferResponse]:
        try:
            for request in requests:
                yield pb.ModelStreamInferResponse(infer_response=echo(request))
        finally:
            ended.set()

    server.stream_infer = notices
    items = client.stream((Request("m", {"x": 1}) for _ in itertools.count()), max_in_flight=2)
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert ended.wait(10)


def test_nothing_in_flight_is_refused_at_once(client: Client) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        client.stream([], max_in_flight=0)


def test_stream_of_nothing_yields_nothing(server: OipServer, run: Run) -> None:
    assert run(server, []) == []
