"""A server whose one model, on a fake engine, keeps its answers; and what its callers see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from inferd.oip.v2.inference_pb2 import (
    InferStatistics,
    ModelInferRequest,
    ModelStatisticsRequest,
    ServerLiveRequest,
)

from tests.fakes.engine import FakeEngine
from tests.server.serving import (
    PATIENCE,
    Running,
    arrays,
    infer_request,
    rows,
    running_fake,
    samples,
)

YAML = "response_cache: {ttl_s: 3600}\n"


@contextmanager
def running_cached(
    folder: Path, yaml: str = YAML, **options: object
) -> Iterator[tuple[Running, FakeEngine]]:
    """Serve `fake`, whose answers are kept."""
    (folder / "fake").mkdir(parents=True)
    (folder / "fake" / "model.yaml").write_text(yaml)
    with running_fake(folder, **options) as (server, engine):
        yield server, engine


def request_of(*values: float, ident: str = "") -> ModelInferRequest:
    return infer_request("fake", rows(*values), ident=ident)


def ask(server: Running, request: ModelInferRequest, timeout: float = PATIENCE) -> grpc.Future:
    return server.stub.ModelInfer.future(request, timeout=timeout)


def how(server: Running, request: ModelInferRequest) -> str:
    """Send a request, check the id, and return why it needed no run; "" if it did."""
    answer, call = server.stub.ModelInfer.with_call(request, timeout=PATIENCE)
    assert answer.id == request.id
    return dict(call.trailing_metadata()).get("inferd-cache", "")


def value(future: grpc.Future) -> tuple[str, list[float]]:
    """Return the id and the rows of an answer."""
    answer = future.result(PATIENCE)
    return answer.id, arrays(answer)["OUTPUT0"][:, 0].tolist()


def results(server: Running, model: str = "fake") -> dict[str, float]:
    """Return what became of requests that the cache was asked about, by result."""
    begin, end = f'inferd_cache_requests_total{{model="{model}",result="', '",version="1"}'
    found = {n: v for n, v in samples(server.metrics_port).items() if n.startswith(begin)}
    return {name.removeprefix(begin).removesuffix(end): v for name, v in found.items()}


def await_waiting(server: Running, count: int) -> None:
    """Return once so many requests wait for an equal one."""
    await_number(
        server, lambda: samples(server.metrics_port)["inferd_cache_waiting_requests"], count
    )


def await_queued(server: Running, count: int) -> None:
    """Return once so many rows wait for the engine."""
    assert server.server is not None
    queue = server.server.repository.resolve("fake", "").queue
    await_number(server, lambda: queue.rows, count)


def await_number(server: Running, read: Callable[[], float], wanted: float) -> None:
    for _ in range(1000):
        if read() == wanted:
            return
        # Each round trip lets the server's thread work off what came before.
        server.stub.ServerLive(ServerLiveRequest(), timeout=PATIENCE)
    raise AssertionError(f"{read()} instead of {wanted}")


def statistics(server: Running, model: str = "fake") -> InferStatistics:
    request = ModelStatisticsRequest(name=model, version="1")
    (found,) = server.stub.ModelStatistics(request, timeout=PATIENCE).model_stats
    return found.inference_stats
