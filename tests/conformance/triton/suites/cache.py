"""L0_response_cache, and what the statistics of a cached model tell."""

from __future__ import annotations

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferRequestedOutput

from .expectation import Suite, expect, inputs_of, row, streamed

suite = Suite()
MODEL = "cached"


def told(client: InferenceServerClient, model: str = MODEL) -> tuple[int, int, int]:
    """Return hits, misses and executions."""
    (found,) = client.get_inference_statistics(model, "1").model_stats
    stats = found.inference_stats
    return stats.cache_hit.count, stats.cache_miss.count, found.execution_count


def grown(
    client: InferenceServerClient, calls: list[dict[str, object]], model: str = MODEL
) -> tuple[int, ...]:
    """Make calls, and return by how much hits, misses and executions grew."""
    before = told(client, model)
    for call in calls:
        client.infer(model, **call)
    return tuple(now - then for now, then in zip(told(client, model), before, strict=True))


@suite.expects("the first request is a miss, the second one a hit that runs nothing")
def hit(client: InferenceServerClient) -> None:
    found = grown(client, [{"inputs": row(1, 2, 3, 4)}] * 2)
    expect(found == (1, 1, 1), found)


@suite.expects("a hit gives what the run gave")
def same_answer(client: InferenceServerClient) -> None:
    first, second = (
        client.infer(MODEL, row(2, 3, 4, 5)).as_numpy("OUTPUT0").tolist() for _ in range(2)
    )
    expect(first == second == [[4.0, 6.0, 8.0, 10.0]], (first, second))


@suite.expects("other values are a miss")
def other_values(client: InferenceServerClient) -> None:
    found = grown(client, [{"inputs": row(3, 3, 3, value)} for value in range(4)])
    expect(found == (0, 4, 4), found)


@suite.expects("the same bytes in another shape are a miss")
def other_shape(client: InferenceServerClient) -> None:
    values = np.full((2, 4), 7, np.float32)
    calls = [{"inputs": inputs_of(values)}, {"inputs": inputs_of(values[:1])}]
    expect(grown(client, calls) == (0, 2, 2))


@suite.expects("other outputs asked for are a miss")
def other_outputs(client: InferenceServerClient) -> None:
    wanted = [InferRequestedOutput("OUTPUT0", class_count=1)]
    inputs = row(9, 8, 7, 6)
    found = grown(client, [{"inputs": inputs}, {"inputs": inputs, "outputs": wanted}])
    expect(found == (0, 2, 2), found)


@suite.expects("the id of a request is its own on a hit")
def own_id(client: InferenceServerClient) -> None:
    ids = [client.infer(MODEL, row(4, 4, 4, 4), request_id=name).get_response().id for name in "ab"]
    expect(ids == ["a", "b"], ids)


@suite.expects("a stream is answered from the cache, too")
def stream(client: InferenceServerClient) -> None:
    inputs = row(5, 5, 5, 5)
    client.infer(MODEL, inputs)
    before = told(client)
    found = streamed(client, MODEL, inputs=inputs).as_numpy("OUTPUT0").tolist()
    expect(found == [[10.0] * 4], found)
    expect(told(client)[0] == before[0] + 1, told(client))


@suite.expects("a model without a cache runs each request, and tells no hits")
def without(client: InferenceServerClient) -> None:
    found = grown(client, [{"inputs": row(1, 2, 3, 4)}] * 2, "scale")
    expect(found == (0, 0, 2), found)


@suite.expects("a reload of another file forgets, of the same one does not answer wrongly")
def reloaded(client: InferenceServerClient) -> None:
    inputs = row(6, 6, 6, 6)
    before = client.infer(MODEL, inputs).as_numpy("OUTPUT0").tolist()
    client.load_model(MODEL)
    expect(client.infer(MODEL, inputs).as_numpy("OUTPUT0").tolist() == before)


@suite.expects("a hit counts as a success with a time of its own")
def times(client: InferenceServerClient) -> None:
    client.infer(MODEL, row(8, 8, 8, 8))
    client.infer(MODEL, row(8, 8, 8, 8))
    (found,) = client.get_inference_statistics(MODEL, "1").model_stats
    stats = found.inference_stats
    expect(stats.success.count == stats.cache_hit.count + stats.cache_miss.count, stats)
    expect(stats.cache_hit.ns > 0 and stats.cache_miss.ns > 0, stats)


@suite.expects("a hit is no inference in the count of inferences")
def hits_are_no_inferences(client: InferenceServerClient) -> None:
    (before,) = client.get_inference_statistics(MODEL, "1").model_stats
    client.infer(MODEL, row(8, 8, 8, 9))
    client.infer(MODEL, row(8, 8, 8, 9))
    (after,) = client.get_inference_statistics(MODEL, "1").model_stats
    found = after.inference_count - before.inference_count
    expect(found == 1, f"inference_count grew by {found} for a miss and a hit")


if __name__ == "__main__":
    suite.run()
