"""Callers who arrive together: each gets the answer that it gets alone, in every arrangement."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from inferd.oip.v2 import inference_pb2 as oip
from inferd.tensors import Array
from inferd.v1.server_pb2 import StatusRequest
from inferd.v1.server_pb2_grpc import ServerServiceStub
from inferd_server.batching.inline import InlineLoop

from tests import mixing, models
from tests.server.serving import PATIENCE, Running, arrays, infer_request, running, running_split

F32, I64 = np.float32, np.int64
DELAY = "max_queue_delay_ms: 50"
"""So that callers who arrive together are one batch, where they may be."""
USUAL = np.array([[0.5, -0.25, 0.75, 0.1]], F32)
Given: TypeAlias = Array | dict[str, Array]
"""Inputs by name; an array alone is X."""
ORDER = np.array([[3, 1, 2, 0]], F32)
PIXELS = np.linspace(-1, 1, 1000, dtype=F32)[None]
CALLERS: dict[str, tuple[models.ModelProto, Sequence[Given]]] = {
    "softmax": (mixing.scores_beside_pixels(), [USUAL, USUAL * 9]),
    "numbered": (mixing.numbered_beside_pixels(), [USUAL, USUAL * 9]),
    "order": (mixing.numbered_beside_order(), [ORDER, -ORDER]),
    "stamped": (mixing.stamped_mask(), [PIXELS, -PIXELS]),
    "longest": (mixing.longest_length(), [np.array([[1, 2, 3, n]], np.int32) for n in (4, 9)]),
    "norm": (mixing.test_time_norm(), [USUAL, USUAL * 9]),
    "capacity": (mixing.capacity(1), [np.abs(USUAL), np.abs(USUAL) * 9]),
    "leak": (mixing.leak(0.01), [USUAL, USUAL * 1e4]),
    "large": (mixing.scaled_if_large(), [USUAL, USUAL * 9]),
    "nan": (mixing.zeros_beside_nan(), [USUAL, USUAL * np.nan]),
    "padding": (
        mixing.cut_to_the_longest(199),
        [np.array([[5, 6, 199, 199]], I64), np.array([[5, 6, 7, 8]], I64)],
    ),
    "table": (mixing.shared_table(), [np.array([[3, 11]], I64), np.array([[10, 12]], I64)]),
    "quantised": (mixing.dynamically_quantised(), [USUAL, USUAL * 1e4]),
    "twice": (mixing.emitted_twice(), [np.array([[5]], F32), np.array([[6]], F32)]),
    "words": (
        mixing.split_words(),
        [np.array([b"a b"], object), np.array([b"one two three four"], object)],
    ),
    "stop words": (
        mixing.without_stop_words(),
        [np.array([b"the"], object), np.array([b"one"], object)],
    ),
    "dropout": (mixing.dropout(), [USUAL, USUAL * 9]),
    "sampled": (mixing.sampled(), [USUAL, USUAL * 9]),
    "label": (mixing.label_of_one_row(), [USUAL, -USUAL]),
    "names": (mixing.other_name(), [USUAL, USUAL * 9]),
    "towers": (
        mixing.two_towers(),
        [{"users": USUAL, "items": USUAL * 2}, {"users": USUAL * 9, "items": USUAL}],
    ),
    "merged": (mixing.merged_towers(), [{"A": USUAL, "B": USUAL}, {"A": USUAL, "B": USUAL * 9}]),
    "one id": (mixing.one_id(), [np.array([0], I64), np.array([-1], I64)]),
    "features": (mixing.thirty_features(), [PIXELS[:, :30], PIXELS[:, -30:]]),
    "known": (mixing.known_words(), [np.array([[b"red"]], object), np.array([[b"blue"]], object)]),
}
"""By model, what two callers send at once."""
APART = ("label", "names", "towers", "merged", "one id", "features", "known")
"""Models whose callers share runs; those of all others must not."""
RANDOM = ("dropout", "sampled")
"""Models whose answers are others each time."""
STEADY = [name for name in CALLERS if name not in (*RANDOM, "norm")]
"""All others, but for one that its own runs change."""


@pytest.fixture(params=["threads", "inline", "split"], scope="module")
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    folder = models.repository(
        tmp_path_factory.mktemp(request.param),
        {name: proto for name, (proto, _) in CALLERS.items()},
        dict.fromkeys(CALLERS, DELAY),
    )
    with arranged(request.param, folder) as found:
        yield found


def arranged(arrangement: str, folder: Path, **settings: object) -> AbstractContextManager[Running]:
    if arrangement == "split":
        return running_split(folder, **settings)
    inline = InlineLoop(time.monotonic) if arrangement == "inline" else None
    return running(folder, inline=inline, processes=arrangement, **settings)


def answers(server: Running, name: str, together: bool) -> list[dict[str, Array] | str]:
    """Return what each caller of a model gets, one after the other or all at once."""
    _, given = CALLERS[name]
    gate = threading.Barrier(len(given))

    def ask(inputs: Given) -> dict[str, Array] | str:
        request = infer_request(name, inputs if isinstance(inputs, dict) else {"X": inputs})
        if together:
            gate.wait(PATIENCE)
        return arrays(server.infer(request))

    with ThreadPoolExecutor(len(given)) as pool:
        return list(pool.map(ask, given)) if together else [ask(inputs) for inputs in given]


@pytest.mark.parametrize("name", STEADY)
def test_a_caller_gets_the_same_answer_in_company(server: Running, name: str) -> None:
    alone = answers(server, name, together=False)
    for _ in range(3):
        for one, other in zip(alone, answers(server, name, together=True), strict=True):
            assert one.keys() == other.keys()  # type: ignore[union-attr]
            for output in one:
                np.testing.assert_array_equal(one[output], other[output])  # type: ignore[index]


@pytest.mark.parametrize("name", CALLERS)
def test_only_callers_of_models_that_do_not_mix_share_runs(server: Running, name: str) -> None:
    for _ in range(20 if name in APART else 5):
        answers(server, name, together=True)
        if 2 in batch_sizes(server, name):
            break
    assert (2 in batch_sizes(server, name)) == (name in APART)


def batch_sizes(server: Running, name: str) -> set[int]:
    request = oip.ModelStatisticsRequest(name=name)
    (found,) = server.stub.ModelStatistics(request, timeout=PATIENCE).model_stats
    return {batch.batch_size for batch in found.batch_stats}


@pytest.mark.parametrize("name", CALLERS)
def test_the_verdict_stands_in_status_and_configuration(server: Running, name: str) -> None:
    statuses = ServerServiceStub(server.channel).Status(StatusRequest(), timeout=PATIENCE).models
    (status,) = [status for status in statuses if status.name == name]
    assert status.batch_reason
    assert (" runs, " in status.batch_reason) == (name in APART)
    assert ("as with dropout or sampling" in status.batch_reason) == (name in RANDOM)
    assert ("module.eval()" in status.batch_reason) == (name == "norm")
    config = server.stub.ModelConfig(oip.ModelConfigRequest(name=name), timeout=PATIENCE).config
    assert config.parameters["batch_reason"].string_value == status.batch_reason


def test_outputs_are_described_as_they_come(server: Running) -> None:
    request = oip.ModelMetadataRequest(name="label")
    metadata = server.stub.ModelMetadata(request, timeout=PATIENCE)
    assert [list(output.shape) for output in metadata.outputs] == [[-1]]
