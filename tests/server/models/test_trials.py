"""Trials and lost engines in one process, as health tells of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from inferd.oip.v2 import inference_pb2 as oip
from inferd.v1.server_pb2 import StatusRequest
from inferd.v1.server_pb2_grpc import ServerServiceStub
from inferd_engines.engine import EngineError
from inferd_server.models import recovery

from tests.server.rpc.test_health import check, name, watch
from tests.server.serving import PATIENCE, infer_request, metrics_text, rows, running_fake

OFTEN = 0.5
"""Seconds between trials, few enough to wait for."""
GONE = EngineError("the device is gone", fatal=True)


def test_a_model_whose_engine_hangs_is_not_ready_until_it_answers(tmp_path: Path) -> None:
    with running_fake(tmp_path, canary_interval_s=OFTEN) as (server, engine):
        overall, model = watch(server, ""), watch(server, "fake")
        assert name(next(overall)) == name(next(model)) == "SERVING"
        engine.hold()
        assert name(next(overall)) == name(next(model)) == "NOT_SERVING"
        ready = oip.ModelReadyRequest(name="fake")
        assert not server.stub.ModelReady(ready, timeout=PATIENCE).ready
        (status,) = (
            ServerServiceStub(server.channel).Status(StatusRequest(), timeout=PATIENCE).models
        )
        assert (status.state, status.reason) == (
            "UNAVAILABLE", "a trial inference was not answered in time",
        )  # fmt: skip
        assert check(server, "liveness") == "SERVING"
        engine.release()
        assert name(next(overall)) == name(next(model)) == "SERVING"
        assert 'inferd_canary_runs_total{model="fake",outcome="late"' in metrics_text(
            server.metrics_port
        )


def test_a_model_whose_engine_fails_is_not_ready_until_it_does_not(tmp_path: Path) -> None:
    with running_fake(tmp_path, canary_interval_s=OFTEN) as (server, engine):
        model = watch(server, "fake")
        assert name(next(model)) == "SERVING"
        engine.fail(EngineError("out of memory"))
        assert name(next(model)) == "NOT_SERVING"
        assert name(next(model)) == "SERVING"


def test_a_model_that_lost_its_engine_is_loaded_again(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, engine):
        model = watch(server, "fake")
        assert name(next(model)) == "SERVING"
        engine.fail(GONE)
        server.refused(infer_request("fake", rows(1.0)))
        assert name(next(model)) == "NOT_SERVING"
        assert name(next(model)) == "SERVING"
        assert server.infer(infer_request("fake", rows(1.0))).model_name == "fake"


def test_liveness_fails_when_a_lost_model_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "LIMIT", 0)
    with running_fake(tmp_path) as (server, engine):
        live = watch(server, "liveness")
        assert name(next(live)) == "SERVING"
        engine.fail(GONE)
        server.refused(infer_request("fake", rows(1.0)))
        assert name(next(live)) == "NOT_SERVING"
        assert not server.stub.ServerLive(oip.ServerLiveRequest(), timeout=PATIENCE).live
        # Whoever loads it by hand has repaired it.
        server.stub.RepositoryModelLoad(
            oip.RepositoryModelLoadRequest(model_name="fake"), timeout=PATIENCE
        )
        assert name(next(live)) == "SERVING"
