"""One caller's full stream, where a front and a worker share the work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub

from tests import models
from tests.server.lifecycle.process import PATIENCE
from tests.server.processes.split import split_process
from tests.server.serving import infer_request

ROUNDS = 20_000
"""About 10 ms of a run."""
SENT = 60
OTHER = "other"


def request_of(number: int) -> ModelInferRequest:
    values = np.full((1, 16), number, np.int32)
    return infer_request("slow", {"INPUT0": values, "INPUT1": values}, ident=str(number))


def test_one_callers_full_stream_keeps_nobody_waiting_for_all_of_it(tmp_path: Path) -> None:
    one_by_one = {"slow": "max_batch_size: 1\n"}
    repository = models.repository(tmp_path, {"slow": models.slow_add(ROUNDS)}, one_by_one)
    with split_process(repository) as split, split.channel() as one, split.channel() as another:
        stub, other_stub = GRPCInferenceServiceStub(one), GRPCInferenceServiceStub(another)
        # Connected before the stream begins.
        other_stub.ModelInfer(request_of(SENT), timeout=PATIENCE)
        answers = stub.ModelStreamInfer(map(request_of, range(SENT)), timeout=PATIENCE)
        order = [next(answers).infer_response.id]
        other = other_stub.ModelInfer.future(request_of(SENT), timeout=PATIENCE)
        other.add_done_callback(lambda _: order.append(OTHER))
        order += [answer.infer_response.id for answer in answers]
        assert other.result(PATIENCE).id == str(SENT)
    assert [ident for ident in order if ident != OTHER] == [str(n) for n in range(SENT)]
    # Its own share, and what ran while the other was on its way.
    assert order.index(OTHER) < SENT / 2
