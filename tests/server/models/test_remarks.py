"""Settings of a model that have no effect, or another one, are told."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from inferd_engines.engine import Signature, Tensor
from inferd_server.models.config import ModelConfig
from inferd_server.models.remarks import remarks
from inferd_server.models.version import ModelBounds

from tests.fakes.engine import DOUBLING
from tests.server.models.bench import Bench

BATCHED = ModelBounds(8, 0.0, 64, 2**20)
ALONE = ModelBounds(0, 0.0, 64, 2**20)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("labels: {OUTPUT1: [cat]}", "labels names 'OUTPUT1', and the outputs are OUTPUT0"),
        ("warm_up: [1, 9]", "warm_up names 9 rows, and a batch has 8 at most"),
        (
            "preferred_batch_size: 16",
            "preferred_batch_size is 16, and a batch has 8 at most",
        ),
        (
            "max_queue_rows: 4",
            "max_queue_rows is 4, and raised to 8, which one request may bring",
        ),
        (
            "{priority_levels: 2, priority_queue_rows: {2: 3}}",
            "priority_queue_rows lets 3 rows wait at priority 2: a request of more is always "
            "refused, and one may bring 8",
        ),
        (
            "response_cache: {max_bytes: 15}",
            "response_cache.max_bytes is 15, and an answer has 16 and more",
        ),
        (
            "{response_cache: {}, sequence: {}}",
            "response_cache has no effect on requests of a sequence, which are never kept",
        ),
    ],
)
def test_what_has_no_effect_is_told(text: str, said: str) -> None:
    config = ModelConfig(**yaml.safe_load(text))
    assert remarks(config, DOUBLING, BATCHED, config.max_queue_rows or 64) == [said]


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "labels: {OUTPUT0: [cat]}",
        "warm_up: [1, 8]",
        "preferred_batch_size: 8",
        "max_queue_rows: 8",
        "{priority_levels: 2, priority_queue_rows: {2: 8}}",
        "response_cache: {max_bytes: 16}",
    ],
)
def test_what_has_an_effect_is_not_told(text: str) -> None:
    config = ModelConfig(**yaml.safe_load(text))
    assert remarks(config, DOUBLING, BATCHED, config.max_queue_rows or 64) == []


def test_a_model_without_batches_takes_one_row_and_any_queue() -> None:
    config = ModelConfig(warm_up=[2], max_queue_rows=1)
    expected = ["warm_up names 2 rows, and a batch has 1 at most"]
    assert remarks(config, DOUBLING, ALONE, 1) == expected


def test_strings_may_be_empty() -> None:
    texts = Signature((), (Tensor("T", np.dtype(object), (None, 4)),))
    config = ModelConfig(response_cache={"max_bytes": 1})
    assert remarks(config, texts, BATCHED, 64) == []


def test_the_log_tells_at_the_load(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.add("m", 1, yaml="labels: {NONE: [cat]}")
    bench.repository.load("m")
    said = [record for record in caplog.records if "setting of a model" in record.message]
    assert [vars(record)["model"] for record in said] == ["m"]
