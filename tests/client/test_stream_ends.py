from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Iterator

import grpc
import numpy as np
import pytest
from inferd.oip.v2 import inference_pb2 as pb
from inferd_client import AsyncClient, Client, Request
from inferd_client.errors import (
    DeadlinePassed,
    InvalidInput,
    InvalidResponse,
    ShuttingDown,
    Unavailable,
)

from tests.client.streams import Run, numbered
from tests.fakes.oip_server import OipServer, echo


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


def test_asyncio_stream_keeps_the_status_of_the_server_when_a_write_loses_the_race(
    server: OipServer,
) -> None:
    server.fail = (grpc.StatusCode.UNAVAILABLE, "bye", "ShuttingDown")

    async def ended(client: AsyncClient) -> None:
        async for _ in client.stream(numbered(9)):
            pass

    async def scenario() -> list[BaseException | None]:
        async with AsyncClient(server.address) as client:
            return await asyncio.gather(
                *(ended(client) for _ in range(100)), return_exceptions=True
            )

    assert {type(error) for error in asyncio.run(scenario())} == {ShuttingDown}


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


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_whatever_the_iterator_raises_ends_the_stream(
    server: OipServer, run: Run, kind: type[BaseException]
) -> None:
    def breaks() -> Iterator[Request]:
        yield from numbered(1)
        raise kind("enough")

    with pytest.raises(kind):
        run(server, breaks())


def test_ids_like_generated_ones_do_not_collide(server: OipServer, run: Run) -> None:
    server.stream_infer = lambda requests: iter(
        [pb.ModelStreamInferResponse(infer_response=echo(request)) for request in list(requests)]
    )
    x = {"x": np.ones(1)}
    items = run(server, [Request("m", x), Request("m", x, id="inferd-1"), Request("m", x)])
    assert len({item.id for item in items}) == 3
