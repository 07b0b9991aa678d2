"""Labels reach servers that did not answer, through a balancer, and servers that were restarted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from inferd_client import Client
from inferd_client.errors import FeedbackRefused

from tests import models
from tests.balancing.balancers import nginx
from tests.server.cache.redis_server import RedisServer
from tests.server.feedback.test_served import ASKING, metric, of
from tests.server.lifecycle.process import Process, ready_process
from tests.server.serving import Running

KEY = {"TOKEN_KEY": "0123456789abcdef" * 4}
ONE, SPLIT = ("--processes", "inline"), ("--processes", "split", "--fronts", "1")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.repository(tmp_path_factory.mktemp("m"), {"m": models.identity("FP32")})


@contextmanager
def server(
    repository: Path, *flags: str, key: dict[str, str] | None = None
) -> Iterator[tuple[Process, str, int]]:
    """Start a server; gives it, its address and its metrics port."""
    keyed = ("--feedback-keys", "env:TOKEN_KEY") if key else ()
    with ready_process(repository, *flags, *keyed, environment=key) as (process, where):
        yield process, f"127.0.0.1:{where['grpc_port']}", where["metrics_port"]


def labels_at(port: int) -> float:
    return metric(Running(None, 0, port, None, None), "inferd_feedback_labels_total")  # type: ignore[arg-type]


def tokens(address: str, count: int) -> list[str]:
    with Client(address) as client:
        return [
            client.infer("m", INPUT0=of(1), parameters=ASKING).prediction_token
            for _ in range(count)
        ]


@pytest.mark.slow
def test_a_label_counts_at_a_server_that_did_not_answer_and_after_a_restart(
    repository: Path, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        answering = ExitStack()
        stack.callback(answering.close)
        _, first, _ = answering.enter_context(server(repository, *ONE, key=KEY))
        _, second, second_metrics = stack.enter_context(server(repository, *ONE, key=KEY))
        made = tokens(first, 4)
        # The one that answered is gone; nginx takes every call to the other.
        answering.close()
        addresses = [first, second, second]
        with nginx(tmp_path, addresses) as balanced, Client(balanced) as client:
            assert [client.feedback(token, 1) for token in made[:2]] == [1, 1]
            with pytest.raises(FeedbackRefused) as refused:
                client.feedback(made[0], 1)
        assert refused.value.details == {"reason": "DOUBLED"}
        assert labels_at(second_metrics) == 2
        _, restarted, restarted_metrics = stack.enter_context(server(repository, *ONE, key=KEY))
        with Client(restarted) as client:
            assert [client.feedback(token, 2) for token in made[2:]] == [1, 1]
        assert labels_at(restarted_metrics) == 2


@pytest.mark.slow
def test_without_a_key_of_its_own_the_token_of_another_server_is_forged(repository: Path) -> None:
    with server(repository, *ONE, key=KEY) as (_, address, _):
        (shared,) = tokens(address, 1)
    with server(repository, *ONE) as (process, address, _):
        (own,) = tokens(address, 1)
        process.wait_for("prediction tokens do not survive a restart: feedback_keys names no key")
        with Client(address) as client:
            with pytest.raises(FeedbackRefused) as refused:
                client.feedback(shared, 1)
            assert refused.value.details == {"reason": "FORGED"}
            assert client.feedback(own, 1) == 1


@pytest.mark.slow
def test_two_servers_that_share_a_redis_take_a_token_once(repository: Path, tmp_path: Path) -> None:
    with RedisServer(tmp_path) as redis, ExitStack() as stack:
        flags = (*ONE, "--cache-redis-url", redis.url)
        servers = [stack.enter_context(server(repository, *flags, key=KEY)) for _ in range(2)]
        (token,) = tokens(servers[0][1], 1)
        outcomes = []
        for _, address, _ in servers:
            with Client(address) as client:
                outcomes += client.feedback_many([(token, 1)])
        assert [outcome.reason for outcome in outcomes] == ["", "DOUBLED"]


def test_a_key_that_cannot_be_had_ends_the_start_with_a_sentence(repository: Path) -> None:
    flags = ("--model-repository", str(repository), *SPLIT)
    with Process(*flags, "--feedback-keys", "env:NO_SUCH_KEY") as process:
        told = process.wait_for("cannot start")
        assert told["error"] == "feedback_keys: the variable NO_SUCH_KEY has no key"
        assert process.exit_code() == 1
