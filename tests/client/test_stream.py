from __future__ import annotations

from collections.abc import Iterator

import pytest
from inferd.oip.v2 import inference_pb2 as pb
from inferd_client import InferdError, Request
from inferd_client.errors import (
    InvalidResponse,
    QueueFull,
)

from tests.client.streams import Run, numbered
from tests.fakes.oip_server import OipServer, echo


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


def test_stream_of_nothing_yields_nothing(server: OipServer, run: Run) -> None:
    assert run(server, []) == []
