"""perf_analyzer in every mode that services are measured with: all answered, none failed."""

from __future__ import annotations

import os
import re
import subprocess

import grpc
import pytest
from inferd.oip.v2.inference_pb2 import ModelStatisticsRequest
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub

from benchmarks.peers.analyzer import Analyzer

from .tools import PERF_ANALYZER, TIMEOUT, output, require

COUNT = 20
TRIES, PATIENCE = 4, 20.0
REQUESTS = ("--request-count", str(COUNT))
RATE = ("--request-rate-range", str(COUNT))
SEQUENCE = ("-m", "summing", "--sequence-length", "5")
MODES = {
    "unary": ("-m", "simple"),
    "async": ("-m", "simple", "--async", "--concurrency-range", "4"),
    "streaming": ("-m", "simple", "--async", "--streaming", "--concurrency-range", "4"),
    "rate": ("-m", "simple", *RATE),
    "rate streaming": ("-m", "simple", *RATE, "--async", "--streaming"),
    "shared memory": ("-m", "simple", "--shared-memory", "system"),
    "shared memory streaming": (
        *("-m", "simple", "--shared-memory", "system"),
        *("--async", "--streaming"),
    ),
    "batches compressed": ("-m", "simple", "-b", "8", "--grpc-compression-algorithm", "gzip"),
    "strings": ("-m", "strings", "--string-length", "12"),
    "sequences": SEQUENCE,
    "sequences sync": (*SEQUENCE, "--sync"),
    "sequences streaming": (
        *(*SEQUENCE, "--async", "--streaming"),
        *("--concurrency-range", "3"),
    ),
    "sequences rate": (*SEQUENCE, *RATE, "--num-of-sequences", "3"),
}


def counts(address: str, model: str) -> tuple[int, int]:
    """Return how many requests succeeded and failed so far."""
    with grpc.insecure_channel(address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        answer = stub.ModelStatistics(ModelStatisticsRequest(name=model), timeout=TIMEOUT)
    (found,) = answer.model_stats
    return found.inference_stats.success.count, found.inference_stats.fail.count


def analyzed(address: str, mode: str) -> str:
    """Return what perf_analyzer says of a server.

    On a busy machine it sleeps for ever at times though it has all its answers, and with a rate
    before it has sent all: then once more.

    Raises:
        subprocess.TimeoutExpired: it waits for an answer, or sleeps again and again.
    """
    libraries = PERF_ANALYZER / "nvidia" / "cuda_runtime" / "lib"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    program = str(PERF_ANALYZER / "bin/perf_analyzer")
    command = [program, "-u", address, "-i", "grpc", *MODES[mode], *REQUESTS]
    for left in reversed(range(TRIES)):
        before = counts(address, MODES[mode][1])[0]
        try:
            return output(command, environment, PATIENCE)
        except subprocess.TimeoutExpired:
            answered = counts(address, MODES[mode][1])[0] - before
            if not left or (answered < COUNT and "rate" not in mode):
                raise
    raise AssertionError("it was not tried")


@pytest.mark.parametrize("arrangement", ["address", "split_address"])
@pytest.mark.parametrize("mode", MODES)
def test_every_request_of_perf_analyzer_is_answered(
    request: pytest.FixtureRequest, mode: str, arrangement: str
) -> None:
    require(PERF_ANALYZER / "bin" / "perf_analyzer")
    try:
        Analyzer(PERF_ANALYZER).check()
    except RuntimeError as error:
        pytest.skip(str(error))
    address: str = request.getfixturevalue(arrangement)
    model = MODES[mode][1]
    succeeded, failed = counts(address, model)
    text = analyzed(address, mode)
    told = re.search("Request count: ([0-9]+)", text)
    assert told is not None, text
    assert int(told[1]) >= COUNT
    now = counts(address, model)
    assert now[0] - succeeded >= int(told[1])
    assert now[1] == failed
    assert ("Sequence count" in text) == ("sequences" in mode)
