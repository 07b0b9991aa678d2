"""L0_sequence_batcher, what of it goes over gRPC: sums of sequences, and what ends them."""

from __future__ import annotations

import itertools
import queue
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from .expectation import PATIENCE, Suite, counts, expect, inputs_of, refused, together

suite = Suite()
MODEL, SHARED, FEW, SILENT = "summing", "summing_shared", "summing_few", "summing_silent"
IDS = itertools.count(1000)


def step(
    value: int, key: int | str, first: bool = False, last: bool = False, rows: int = 1
) -> dict[str, Any]:
    """Return what to ask: a value of a sequence."""
    return {
        "inputs": inputs_of(np.full((rows, 1), value, np.int32)),
        "sequence_id": key,
        "sequence_start": first,
        "sequence_end": last,
    }


def steps(values: Sequence[int], key: int | str) -> list[dict[str, Any]]:
    """Return all requests of a sequence."""
    return [
        step(value, key, first=index == 0, last=index == len(values) - 1)
        for index, value in enumerate(values)
    ]


def sums(client: InferenceServerClient, values: Sequence[int], key: int | str) -> list[int]:
    """Send a sequence, one after the other, and return what each step gave."""
    return [
        int(client.infer(MODEL, **each).as_numpy("OUTPUT0")[0, 0]) for each in steps(values, key)
    ]


@suite.expects("a sequence is summed up")
def simple(client: InferenceServerClient) -> None:
    expect(sums(client, range(1, 10), next(IDS)) == list(np.cumsum(range(1, 10))))


@suite.expects("a sequence is summed up over a stream")
def over_a_stream(client: InferenceServerClient) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error or result))
    for each in steps(range(1, 10), next(IDS)):
        client.async_stream_infer(MODEL, **each)
    client.stop_stream()
    found = [answers.get(timeout=PATIENCE).as_numpy("OUTPUT0")[0, 0] for _ in range(9)]
    expect(found == list(np.cumsum(range(1, 10))), found)


@suite.expects("a sequence may have one request")
def one_step(client: InferenceServerClient) -> None:
    expect(sums(client, [42], next(IDS)) == [42])


@suite.expects("a sequence may be named by a text")
def text_id(client: InferenceServerClient) -> None:
    expect(sums(client, [1, 2, 3], f"text {next(IDS)}") == [1, 3, 6])


@suite.expects("a step of several rows is refused")
def several_rows(client: InferenceServerClient) -> None:
    refused(client.infer, MODEL, **step(1, next(IDS), first=True, rows=2))


@suite.expects("a step without an id is refused")
def no_id(client: InferenceServerClient) -> None:
    refused(client.infer, MODEL, **step(1, 0, first=True))
    refused(client.infer, MODEL, inputs_of(np.ones((1, 1), np.int32)))


@suite.expects("a step of a sequence that never started is refused")
def no_start(client: InferenceServerClient) -> None:
    refused(client.infer, MODEL, **step(1, next(IDS)))


@suite.expects("a step of a sequence that ended is refused")
def after_the_end(client: InferenceServerClient) -> None:
    key = next(IDS)
    sums(client, [1, 2], key)
    refused(client.infer, MODEL, **step(3, key))


@suite.expects("a start of an open sequence begins anew")
def no_end(client: InferenceServerClient) -> None:
    key = next(IDS)
    client.infer(MODEL, **step(5, key, first=True))
    expect(sums(client, [1, 2], key) == [1, 3])


def side_by_side(client: InferenceServerClient, lengths: Sequence[int], most: int) -> None:
    """Send sequences of these lengths, a step of each at once; batches have `most` rows."""
    keys = [next(IDS) for _ in lengths]
    before = counts(client, SHARED)
    for index in range(max(lengths)):
        living = [
            (key, length) for key, length in zip(keys, lengths, strict=True) if index < length
        ]
        calls = [
            step(index + 1, key, first=index == 0, last=index == length - 1)
            for key, length in living
        ]
        answers = together(client, [{"model_name": SHARED, **each} for each in calls])
        expected = (index + 1) * (index + 2) // 2
        for answer, _ in answers:
            expect(not isinstance(answer, InferenceServerException), answer)
            expect(answer.as_numpy("OUTPUT0")[0, 0] == expected, answer.get_response())
    grown = counts(client, SHARED).since(before)
    expect(grown.inferences == sum(lengths), grown)
    expect(max(grown.batches) == most, grown.batches)


suite.add("two sequences share runs", side_by_side, (4, 4), 2, quick=False)
suite.add("four sequences share runs", side_by_side, (4, 4, 4, 4), 4)
suite.add("sequences of other lengths share runs", side_by_side, (2, 4, 4, 2), 4, quick=False)


@suite.expects("one sequence more than there is room for waits until one ends")
def backlog(client: InferenceServerClient) -> None:
    keys = [next(IDS) for _ in range(4)]
    for key in keys:
        client.infer(FEW, **step(1, key, first=True))
    try:
        client.infer(FEW, **step(1, next(IDS), first=True, last=True), client_timeout=1.0)
    except InferenceServerException as error:
        expect("DEADLINE_EXCEEDED" in str(error.status()), error)
    finally:
        for key in keys:
            client.infer(FEW, **step(1, key, last=True))


@suite.expects("the end of a sequence makes room for the next one")
def room(client: InferenceServerClient) -> None:
    keys = [next(IDS) for _ in range(4)]
    for key in keys:
        client.infer(FEW, **step(1, key, first=True))
    client.infer(FEW, **step(1, keys[0], last=True))
    found = client.infer(FEW, **step(7, next(IDS), first=True, last=True)).as_numpy("OUTPUT0")
    expect(found.tolist() == [[7]], found)
    for key in keys[1:]:
        client.infer(FEW, **step(1, key, last=True))


@suite.expects("a start with the id of an open sequence needs no room of its own")
def same_id(client: InferenceServerClient) -> None:
    keys = [next(IDS) for _ in range(4)]
    for key in keys:
        client.infer(FEW, **step(1, key, first=True))
    found = client.infer(FEW, **step(9, keys[0], first=True)).as_numpy("OUTPUT0")
    expect(found.tolist() == [[9]], found)
    for key in keys:
        client.infer(FEW, **step(1, key, last=True))


@suite.expects("a sequence that is silent for too long is over", quick=False)
def silent(client: InferenceServerClient) -> None:
    key = next(IDS)
    client.infer(SILENT, **step(1, key, first=True))
    time.sleep(2.5)
    refused(client.infer, SILENT, **step(2, key))


@suite.expects("steps of one sequence sent at once keep their order")
def ordered(client: InferenceServerClient) -> None:
    key = next(IDS)
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error or result))
    for index, each in enumerate(steps([1] * 50, key)):
        client.async_stream_infer(MODEL, request_id=str(index), **each)
    client.stop_stream()
    found = [answers.get(timeout=PATIENCE) for _ in range(50)]
    expect([each.get_response().id for each in found] == [str(index) for index in range(50)])
    expect([each.as_numpy("OUTPUT0")[0, 0] for each in found] == list(range(1, 51)))


@suite.expects("a step that times out ends its sequence")
def timed_out(client: InferenceServerClient) -> None:
    key = next(IDS)
    client.infer(MODEL, **step(1, key, first=True))
    refused(client.infer, MODEL, **step(1, key), timeout=1)
    refused(client.infer, MODEL, **step(1, key))


@suite.expects("the configuration tells of sequence batching")
def configuration(client: InferenceServerClient) -> None:
    config = client.get_model_config(MODEL).config
    expect(config.HasField("sequence_batching"), config)
    expect(len(config.sequence_batching.state) == 1, config)


if __name__ == "__main__":
    suite.run()
