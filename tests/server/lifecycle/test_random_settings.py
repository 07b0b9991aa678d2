"""Whatever valid settings are given, the server starts, answers rightly and ends well."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from inferd.oip.v2.inference_pb2 import ModelInferResponse
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd_server.settings.sources import fields

from tests.server.lifecycle.process import ready_process
from tests.server.lifecycle.starts import LEFT_OUT, SETTINGS, drawn_flags, drawn_repository
from tests.server.serving import PATIENCE, arrays, infer_request

SEED = 19
STARTS = 300
AT_ONCE = 2
REQUESTS = 12


def test_every_setting_can_be_drawn() -> None:
    assert set(SETTINGS) | LEFT_OUT == set(fields())
    assert not set(SETTINGS) & LEFT_OUT


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_300_starts_with_random_settings_answer_rightly_and_end_well(tmp_path: Path) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        problems = pool.map(lambda index: problem(index, tmp_path), range(STARTS))
        assert [each for each in problems if each] == []


def problem(index: int, folder: Path) -> str:
    """Start a server, ask it and end it; return what went wrong, with its settings."""
    random_ = random.Random(SEED * STARTS + index)
    repository = drawn_repository(random_, folder / str(index))
    flags = drawn_flags(random_)
    try:
        served(repository, flags, random_)
    except (AssertionError, grpc.RpcError, KeyError, ValueError) as error:
        settings = {path.parent.name: path.read_text() for path in repository.glob("*/model.yaml")}
        return f"start {index}: {flags} {settings}: {type(error).__name__} {error}"
    return ""


def served(repository: Path, flags: list[str], random_: random.Random) -> None:
    """Raise where the server does not start, answer or end as it should."""
    with ready_process(repository, *flags) as (process, where):
        with grpc.insecure_channel(f"127.0.0.1:{where['grpc_port']}") as channel:
            stub = GRPCInferenceServiceStub(channel)
            for number in range(REQUESTS):
                ask(stub, random_, number)
        process.terminate()
        assert process.exit_code() == 0
        process.wait_for("stopped")
    assert [line for line in process.lines if "Traceback" in line] == []


def ask(stub: GRPCInferenceServiceStub, random_: random.Random, number: int) -> None:
    """Send one row that nobody sent before, by a call or a stream, and check the answer."""
    model = random_.choice(("simple", "free", "scaled"))
    first = np.full((1, {"simple": 16, "free": random_.randint(1, 50), "scaled": 4}[model]), number)
    given = {"INPUT0": first.astype(np.int32 if model == "simple" else np.float32)}
    if model == "simple":
        given["INPUT1"] = np.ones_like(given["INPUT0"])
    request = infer_request(model, given)
    if random_.random() < 0.5:
        answer: ModelInferResponse = stub.ModelInfer(request, timeout=PATIENCE)
    else:
        (found,) = stub.ModelStreamInfer(iter([request]), timeout=PATIENCE)
        assert not found.error_message, found.error_message
        answer = found.infer_response
    factor = 2 if answer.model_version == "1" else 3
    expected = {"simple": first + 1, "free": first * 2, "scaled": first * factor}
    np.testing.assert_array_equal(arrays(answer)["OUTPUT0"], expected[model])
