"""L0_batcher: what shares a run, and how long a request waits for company.

Batch sizes are read from the statistics. `preferred` has the preferred sizes 2 and 6 of at most 8
rows, and waits DELAY_S for company; `best` has 4, and `alone` waits for nobody.
"""

from __future__ import annotations

import queue
from typing import Any

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferRequestedOutput

from .expectation import Suite, counts, errors, expect, inputs_of, together

suite = Suite()
DELAY_S = 3.0
LATE_S = 0.9 * DELAY_S
PREFERRED, BEST, ALONE = "batcher_preferred", "batcher_best", "batcher_alone"


def call(rows: int, width: int = 16, outputs: tuple[int, ...] = (0, 1), start: int = 0) -> Any:
    """Return what to ask: rows of a width, in which every element is the same."""
    array = np.full((rows, width), start, np.float32)
    wanted = [InferRequestedOutput(f"OUTPUT{index}") for index in outputs]
    return {"inputs": inputs_of(array, np.ones_like(array)), "outputs": wanted}


def runs(client: InferenceServerClient, model: str, *calls: Any) -> tuple[list[float], dict]:
    """Send calls at once; return after how many seconds each was answered, and batch sizes."""
    before = counts(client, model)
    answers = together(client, [{"model_name": model, **each} for each in calls])
    expect(not errors(answers), answers)
    return [seconds for _, seconds in answers], counts(client, model).since(before).batches


def at_once(client: InferenceServerClient, model: str, *calls: Any, batches: dict) -> None:
    """Expect answers before the delay is over, from these batches."""
    seconds, found = runs(client, model, *calls)
    expect(max(seconds) < LATE_S, f"answered after {seconds}")
    expect(found == batches, found)


def delayed(client: InferenceServerClient, model: str, *calls: Any, batches: dict) -> None:
    """Expect the last answer only when the delay is over, from these batches."""
    seconds, found = runs(client, model, *calls)
    expect(max(seconds) >= LATE_S, f"answered after {seconds}")
    expect(found == batches, found)


@suite.expects("a request of the smaller preferred size is not delayed", quick=False)
def smaller_preferred(client: InferenceServerClient) -> None:
    at_once(client, PREFERRED, call(2), batches={2: 1})


@suite.expects("a request of the larger preferred size is not delayed")
def larger_preferred(client: InferenceServerClient) -> None:
    at_once(client, PREFERRED, call(6), batches={6: 1})


@suite.expects("a request below every preferred size is delayed", quick=False)
def below_preferred(client: InferenceServerClient) -> None:
    delayed(client, PREFERRED, call(1), batches={1: 1})


@suite.expects("a request between preferred sizes is delayed", quick=False)
def between_preferred(client: InferenceServerClient) -> None:
    delayed(client, PREFERRED, call(3), batches={3: 1})


@suite.expects("a request above every preferred size is not delayed")
def above_preferred(client: InferenceServerClient) -> None:
    at_once(client, PREFERRED, call(7), batches={7: 1})


@suite.expects("requests of other shapes do not share a run", quick=False)
def other_shapes(client: InferenceServerClient) -> None:
    seconds, found = runs(client, PREFERRED, call(3, 16), call(3, 8))
    expect(found == {3: 2}, found)
    expect(max(seconds) >= LATE_S, seconds)


@suite.expects("requests whose sum is no preferred size share a run after the delay", quick=False)
def sum_between(client: InferenceServerClient) -> None:
    delayed(client, PREFERRED, call(1), call(3), batches={4: 1})


@suite.expects("requests whose sum is preferred share a run at once")
def sum_preferred(client: InferenceServerClient) -> None:
    at_once(client, PREFERRED, call(1), call(5), batches={6: 1})


@suite.expects("a request of another shape sends off those before it", quick=False)
def sent_off(client: InferenceServerClient) -> None:
    seconds, found = runs(client, PREFERRED, call(1), call(3), call(1, 8))
    expect(found == {4: 1, 1: 1}, found)
    expect(max(seconds[:2]) < LATE_S, f"answered after {seconds}")


@suite.expects("two shapes whose sums are preferred are both answered at once")
def both_shapes(client: InferenceServerClient) -> None:
    at_once(client, PREFERRED, call(1), call(5), call(3, 8), call(3, 8), batches={6: 2})


@suite.expects("of a sum above every preferred size the first goes, the second waits", quick=False)
def sum_above(client: InferenceServerClient) -> None:
    seconds, found = runs(client, PREFERRED, call(3), call(4))
    expect(found == {3: 1, 4: 1}, found)
    expect(min(seconds) < LATE_S <= max(seconds), seconds)


@suite.expects("a request above every preferred size goes at once, and who came before it")
def one_above(client: InferenceServerClient) -> None:
    at_once(client, PREFERRED, call(3), call(7), batches={3: 1, 7: 1})


for asked in (0, 1):

    def same_output(client: InferenceServerClient, asked: int) -> None:
        at_once(
            client,
            PREFERRED,
            call(1, outputs=(asked,)),
            call(5, outputs=(asked,)),
            batches={6: 1},
        )

    suite.add(f"requests that ask for OUTPUT{asked} alone share a run", same_output, asked)


@suite.expects("requests that ask for different outputs share a run")
def different_outputs(client: InferenceServerClient) -> None:
    calls = (call(1, outputs=(0,)), call(5, outputs=(1,)))
    at_once(client, PREFERRED, *calls, batches={6: 1})


@suite.expects("requests that ask for outputs in another order share a run")
def other_order(client: InferenceServerClient) -> None:
    calls = (call(1, outputs=(0, 1)), call(5, outputs=(1, 0)))
    at_once(client, PREFERRED, *calls, batches={6: 1})


@suite.expects("each of those that share a run gets its own rows")
def own_rows(client: InferenceServerClient) -> None:
    calls = [{"model_name": PREFERRED, **call(1, start=index)} for index in range(6)]
    for index, (answer, _) in enumerate(together(client, calls)):
        found = answer.as_numpy("OUTPUT0")
        expect(found.tolist() == [[index + 1.0] * 16], found)


@suite.expects("four single rows make a batch of the preferred four at once")
def aligned(client: InferenceServerClient) -> None:
    at_once(client, BEST, *[call(1)] * 4, batches={4: 1})


@suite.expects("of five single rows four run at once, and one after the delay", quick=False)
def unaligned(client: InferenceServerClient) -> None:
    delayed(client, BEST, *[call(1)] * 5, batches={4: 1, 1: 1})


@suite.expects("three single rows run together after the delay", quick=False)
def none_preferred(client: InferenceServerClient) -> None:
    delayed(client, BEST, *[call(1)] * 3, batches={3: 1})


@suite.expects("the largest preferred size that is there is taken")
def largest(client: InferenceServerClient) -> None:
    seconds, found = runs(client, PREFERRED, *[call(1)] * 12)
    expect(found == {6: 2}, found)
    expect(max(seconds) < LATE_S, seconds)


@suite.expects("without a delay nobody waits, and every row is served")
def no_delay(client: InferenceServerClient) -> None:
    seconds, found = runs(client, ALONE, *[call(1)] * 12)
    expect(sum(size * count for size, count in found.items()) == 12, found)
    expect(max(seconds) < LATE_S, seconds)


@suite.expects("more rows than a batch may have are refused")
def too_many(client: InferenceServerClient) -> None:
    ((answer, _),) = together(client, [{"model_name": PREFERRED, **call(9)}])
    expect(errors([(answer, 0.0)]), answer)


@suite.expects("answers of a stream keep the order of the requests")
def order(client: InferenceServerClient) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error or result))
    for index in range(12):
        client.async_stream_infer(ALONE, request_id=str(index), **call(1 + index % 3))
    client.stop_stream()
    found = [answers.get_nowait().get_response().id for _ in range(12)]
    expect(found == [str(index) for index in range(12)], found)


@suite.expects("the configuration tells preferred sizes and delay")
def configuration(client: InferenceServerClient) -> None:
    batching = client.get_model_config(PREFERRED).config.dynamic_batching
    expect(batching.max_queue_delay_microseconds == DELAY_S * 1e6, batching)
    expect(6 in batching.preferred_batch_size, batching)


@suite.expects("the configuration tells every preferred size of a list")
def all_sizes(client: InferenceServerClient) -> None:
    found = client.get_model_config(PREFERRED).config.dynamic_batching.preferred_batch_size
    expect(set(found) >= {2, 6}, list(found))


if __name__ == "__main__":
    suite.run()
