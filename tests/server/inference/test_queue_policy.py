"""Time-outs that model.yaml gives to requests, and what becomes of those that reach theirs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import pytest
from inferd.oip.v2.inference_pb2 import InferParameter, ModelConfigRequest, ModelInferRequest
from inferd.oip.v2.model_config_pb2 import ModelQueuePolicy
from inferd_server.batching.inline import InlineLoop
from inferd_server.errors import SettingsError
from inferd_server.inference.validation import Urgency, urgency
from inferd_server.models.config import ModelConfig
from inferd_server.settings.reading import validated

from tests import models
from tests.server.inference.held import occupy, waiting
from tests.server.serving import (
    PATIENCE,
    Running,
    arrays,
    infer_request,
    rows,
    running,
    running_fake,
    running_split,
)

POLICIES = """
max_batch_size: 1
priority_levels: 3
queue_policy: {default_timeout_ms: 3600000}
priority_queue_rows: {1: 7}
priority_queue_policy:
  2: {default_timeout_ms: 0.001, timeout_action: delay}
  3: {default_timeout_ms: 0.001, allow_timeout_override: false}
"""


def config_of(**settings: object) -> ModelConfig:
    return validated(ModelConfig, settings, "model.yaml")


def asked(**parameters: int) -> Mapping[str, InferParameter]:
    return {name: InferParameter(int64_param=value) for name, value in parameters.items()}


@pytest.mark.parametrize(
    ("parameters", "settings", "expected"),
    [
        ({}, {}, Urgency(None, 0)),
        ({"timeout": 2_000_000}, {}, Urgency(2.0, 0)),
        ({}, {"default_timeout_ms": 500}, Urgency(0.5, 0)),
        ({"timeout": 0}, {"default_timeout_ms": 500}, Urgency(0.5, 0)),
        ({"timeout": 100_000}, {"default_timeout_ms": 500}, Urgency(0.1, 0)),
        ({"timeout": 9_000_000}, {"default_timeout_ms": 500}, Urgency(0.5, 0)),
        ({"timeout": 100_000}, {"allow_timeout_override": False}, Urgency(None, 0)),
        ({"timeout": 100_000}, {"timeout_action": "delay"}, Urgency(None, 0, 0.1)),
        ({}, {"timeout_action": "delay", "default_timeout_ms": 500}, Urgency(None, 0, 0.5)),
    ],
)
def test_a_request_may_shorten_the_time_that_its_model_gives(
    parameters: dict[str, int], settings: dict[str, object], expected: Urgency
) -> None:
    assert urgency(asked(**parameters), config_of(queue_policy=settings)) == expected


@pytest.mark.parametrize(
    ("priority", "level"), [(0, 1), (1, 0), (3, 2), (4, 1), (2**40, 1), (None, 1)]
)
def test_a_priority_that_a_model_does_not_have_is_its_default(
    priority: int | None, level: int
) -> None:
    parameters = {} if priority is None else asked(priority=priority)
    assert urgency(parameters, config_of(priority_levels=3)).level == level
    assert urgency(parameters, config_of()).level == 0


def test_a_policy_of_a_priority_stands_in_the_place_of_the_models() -> None:
    config = config_of(
        priority_levels=2,
        queue_policy={"default_timeout_ms": 1000},
        priority_queue_policy={2: {"timeout_action": "delay"}},
    )
    assert urgency(asked(priority=1), config) == Urgency(1.0, 0)
    assert urgency(asked(priority=2), config) == Urgency(None, 1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"priority_queue_policy": {2: {}}}, "names 2, and priority_levels is 1"),
        ({"queue_policy": {"default_timeout_ms": 0}}, "greater than 0"),
        ({"queue_policy": {"timeout_action": "reject"}}, "'refuse' or 'delay'"),
        ({"queue_policy": {"max_queue_size": 3}}, "max_queue_size"),
        ({"sequence": {}, "queue_policy": {"timeout_action": "delay"}}, "delays no request"),
    ],
)
def test_what_cannot_be_meant_is_said(settings: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        config_of(**settings)


def request_of(model: str, value: float, priority: int) -> ModelInferRequest:
    request = infer_request(model, rows(value))
    request.parameters["priority"].int64_param = priority
    return request


def running_inline(folder: Path) -> AbstractContextManager[Running]:
    return running(folder, inline=InlineLoop(time.monotonic), processes="inline")


@pytest.mark.parametrize("start", [running, running_inline, running_split])
def test_the_time_of_a_model_ends_requests_that_name_none(
    tmp_path: Path, start: Callable[[Path], AbstractContextManager[Running]]
) -> None:
    folder = models.repository(tmp_path, {"scaled": models.scale(2.0)}, {"scaled": POLICIES})
    with start(folder) as server:
        for priority in (1, 2):
            answer = arrays(server.infer(request_of("scaled", 1.0, priority)))
            assert answer["OUTPUT0"][0, 0] == 2.0
        late = request_of("scaled", 1.0, 3)
        # Passed over, as the model says.
        late.parameters["timeout"].int64_param = 60_000_000
        assert server.refused(late).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        told = ModelConfigRequest(name="scaled")
        batching = server.stub.ModelConfig(told, timeout=PATIENCE).config.dynamic_batching
    assert (batching.priority_levels, batching.default_priority_level) == (3, 2)
    assert batching.default_queue_policy == ModelQueuePolicy(
        default_timeout_microseconds=3_600_000_000, allow_timeout_override=True, max_queue_size=1024
    )
    assert dict(batching.priority_queue_policy) == {
        1: ModelQueuePolicy(
            default_timeout_microseconds=3_600_000_000,
            allow_timeout_override=True,
            max_queue_size=7,
        ),
        2: ModelQueuePolicy(
            timeout_action=ModelQueuePolicy.DELAY,
            default_timeout_microseconds=1,
            allow_timeout_override=True,
            max_queue_size=1024,
        ),
        3: ModelQueuePolicy(default_timeout_microseconds=1, max_queue_size=1024),
    }


def test_who_waits_for_too_long_goes_behind_others_and_is_answered(tmp_path: Path) -> None:
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "model.yaml").write_text(POLICIES)
    with running_fake(tmp_path) as (server, engine):
        busy = occupy(server, engine)
        sent = []
        # The second priority waits behind all others at once, and keeps its own order.
        for value, priority in ((1.0, 2), (2.0, 2), (3.0, 1), (4.0, 1)):
            request = request_of("fake", value, priority)
            sent.append(server.stub.ModelInfer.future(request, timeout=PATIENCE))
            waiting(server, len(sent))
        engine.release()
        for call in (busy, *sent):
            call.result(PATIENCE)
        ran = [float(batch.inputs["INPUT0"][0, 0]) for batch in engine.batches]
    assert ran == [-1.0, 3.0, 4.0, 1.0, 2.0]
