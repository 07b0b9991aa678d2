"""Tokens and labels with real servers, in every arrangement."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
import pytest
from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd.tensors import Array
from inferd.v1.feedback_pb2 import FeedbackRequest, PredictionLabels, TrueLabel
from inferd.v1.feedback_pb2_grpc import FeedbackServiceStub
from inferd_client import AsyncClient, Client, Request
from inferd_client.errors import FeedbackRefused, InvalidInput
from prometheus_client.parser import text_string_to_metric_families

from tests import models
from tests.server.conftest import STARTS
from tests.server.serving import PATIENCE, Running, infer_request, metrics_text, running

LABELS = "labels:\n  OUTPUT0: [cat, dog, bird, cow]\n"
YAML = {
    "asked": LABELS,
    "always": f"{LABELS}feedback: {{tokens: always}}\n",
    "cached": "response_cache: {}\n",
    "counted": "",
    "single": "max_batch_size: 0\n",
}
TOKEN = "inferd_prediction_token"
ASKING = {TOKEN: True}


def repository(folder: Path) -> Path:
    return models.repository(folder, dict.fromkeys(YAML, models.identity("FP32")), YAML)


@pytest.fixture(scope="module", params=list(STARTS))
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    with STARTS[request.param](repository(tmp_path_factory.mktemp("models"))) as server:
        yield server


@pytest.fixture
def client(served: Running) -> Iterator[Client]:
    with Client(f"127.0.0.1:{served.port}") as made:
        yield made


def of(*classes: int) -> Array:
    """Return scores of these classes, rows first."""
    return np.eye(4, dtype=np.float32)[list(classes)]


def metric(server: Running, name: str, **labels: str) -> float:
    """Return the sum of the samples that have these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(metrics_text(server.metrics_port))
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_an_answer_carries_a_token_where_it_is_asked_for(client: Client) -> None:
    asked = client.infer("asked", INPUT0=of(1), parameters=ASKING, id="a")
    assert asked.prediction_token
    assert asked.id == "a"
    assert asked["OUTPUT0"].tolist() == of(1).tolist()
    for parameters in ({}, {TOKEN: False}):
        plain = client.infer("asked", INPUT0=of(1), parameters=parameters)
        assert plain.prediction_token == ""
        assert plain.parameters == {}


def test_model_yaml_may_have_every_answer_carry_one_but_to_who_wants_none(client: Client) -> None:
    assert client.infer("always", INPUT0=of(1)).prediction_token
    assert not client.infer("always", INPUT0=of(1), parameters={TOKEN: False}).prediction_token


def test_requests_that_look_alike_get_tokens_of_their_own(client: Client) -> None:
    found = [client.infer("always", INPUT0=of(n % 4)).prediction_token for n in range(8)]
    assert len(set(found)) == 8
    assert [client.feedback(token, n % 4) for n, token in enumerate(found)] == [1] * 8


def test_labels_of_all_processes_add_up(served: Running) -> None:
    with ExitStack() as stack:
        for number in range(12):
            # A connection each: fronts and replicas take them in turns.
            client = stack.enter_context(Client(f"127.0.0.1:{served.port}"))
            rows = client.infer("counted", INPUT0=of(0, 1), parameters=ASKING)
            assert client.feedback(rows.prediction_token, [0, 1 if number < 9 else 2]) == 2
    about = {"model": "counted", "version": "1"}
    assert metric(served, "inferd_model_accuracy_support", **about) == 24
    assert metric(served, "inferd_model_accuracy", **about) == 21 / 24
    assert metric(served, "inferd_model_recall", **about, **{"class": "1"}) == 1.0
    assert metric(served, "inferd_model_precision", **about, **{"class": "1"}) == 9 / 12
    assert metric(served, "inferd_feedback_labels_total", **about, result="wrong") == 3


def test_a_token_is_of_the_whole_answer_whatever_of_it_is_sent(client: Client) -> None:
    asked = client.infer("asked", INPUT0=of(3), outputs=["OUTPUT0"], parameters=ASKING)
    assert client.feedback(asked.prediction_token, "cow") == 1


def test_a_model_without_a_batch_dimension_predicts_one_class(client: Client) -> None:
    asked = client.infer("single", INPUT0=of(2, 1), parameters=ASKING)
    assert client.feedback(asked.prediction_token, 2) == 1


def test_answers_of_a_stream_carry_tokens(client: Client) -> None:
    requests = [Request("asked", {"INPUT0": of(n)}, parameters=ASKING) for n in range(3)]
    items = list(client.stream(requests))
    tokens = [item.result().prediction_token for item in items]
    assert [each.rows for each in client.feedback_many(zip(tokens, range(3), strict=True))] == [
        1
    ] * 3


def test_an_answer_with_a_token_is_not_kept(client: Client) -> None:
    found = {
        client.infer("cached", INPUT0=of(1), parameters=ASKING).prediction_token for _ in range(3)
    }
    assert len(found) == 3


def test_the_asyncio_client_does_the_same(served: Running) -> None:
    async def scenario() -> Counter[str]:
        async with AsyncClient(f"127.0.0.1:{served.port}") as client:
            asked = await client.infer("asked", INPUT0=of(1), parameters=ASKING)
            assert await client.feedback(asked.prediction_token, "dog") == 1
            outcomes = await client.feedback_many([(asked.prediction_token, 1), ("x", None)])
            return Counter(outcome.reason for outcome in outcomes)

    found = asyncio.run(scenario())
    assert found["FORGED"] == 1
    # Replicas and fronts without Redis remember what they saw themselves.
    assert found["DOUBLED"] + found[""] == 1


def test_a_refused_token_is_an_error_that_says_why(served: Running, client: Client) -> None:
    before = metric(served, "inferd_refused_feedback_total")
    token = client.infer("asked", INPUT0=of(1), parameters=ASKING).prediction_token
    for sent, label, reason in (
        ("nonsense", 1, "FORGED"),
        (token[:-2] + ("A" if token[-2] != "A" else "B") + token[-1], 1, "FORGED"),
        (token, 4, "BAD_LABEL"),
        (token, "horse", "BAD_LABEL"),
        (token, [1, 1], "BAD_LABEL"),
    ):
        with pytest.raises(FeedbackRefused) as refused:
            client.feedback(sent, label)
        assert refused.value.details == {"reason": reason}
    assert client.feedback(token, 1) == 1
    with pytest.raises(FeedbackRefused, match="labels came for this token before"):
        client.feedback(token, 1)
    assert metric(served, "inferd_refused_feedback_total") == before + 6


def test_a_parameter_that_is_no_switch_is_refused(client: Client) -> None:
    with pytest.raises(InvalidInput, match="must be true or false"):
        client.infer("asked", INPUT0=of(1), parameters={TOKEN: 1})


def test_a_request_that_has_to_be_split_cannot_ask_for_one_token(client: Client) -> None:
    many = of(*[1] * 40)
    with pytest.raises(InvalidInput, match="a prediction token is of one call"):
        client.infer("asked", INPUT0=many, parameters=ASKING, split=True)
    assert client.infer("always", INPUT0=many, split=True).prediction_token == ""


def test_other_clients_find_the_token_among_the_parameters(served: Running) -> None:
    request: ModelInferRequest = infer_request("asked", {"INPUT0": of(1)})
    request.parameters[TOKEN].bool_param = True
    token = served.infer(request).parameters[TOKEN].string_param
    told = PredictionLabels(token=token, labels=[TrueLabel(name="dog")])
    with grpc.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        stub = FeedbackServiceStub(channel)
        answer = stub.Feedback(FeedbackRequest(predictions=[told]), timeout=PATIENCE)
    assert [(each.rows, each.reason) for each in answer.results] == [(1, "")]


def test_an_unloaded_models_token_is_refused(tmp_path: Path) -> None:
    with running(repository(tmp_path)) as server, Client(f"127.0.0.1:{server.port}") as client:
        token = client.infer("asked", INPUT0=of(1), parameters=ASKING).prediction_token
        client.unload("asked")
        with pytest.raises(FeedbackRefused) as refused:
            client.feedback(token, 1)
        assert refused.value.details == {"reason": "UNKNOWN_MODEL"}
        client.load("asked")
        assert client.feedback(token, 1) == 1


def test_a_version_with_other_files_under_its_number_refuses_the_tokens_of_before(
    tmp_path: Path,
) -> None:
    folder = repository(tmp_path)
    with running(folder) as server, Client(f"127.0.0.1:{server.port}") as client:
        before = client.infer("always", INPUT0=of(1)).prediction_token
        models.repository(folder, {"always": models.scale(2.0)}, {"always": YAML["always"]})
        client.load("always")
        assert client.feedback(client.infer("always", INPUT0=of(1)).prediction_token, 1) == 1
        with pytest.raises(FeedbackRefused, match="has other files by now"):
            client.feedback(before, 1)
