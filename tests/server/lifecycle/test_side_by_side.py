"""A load that never ends keeps nobody from loading and unloading other models."""

from __future__ import annotations

import os
from pathlib import Path

import grpc
import pytest
from inferd.oip.v2 import inference_pb2 as oip
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub

from tests import models
from tests.server.lifecycle.process import PATIENCE, ready_process
from tests.server.serving import arrays, infer_request, rows


@pytest.mark.parametrize("processes", ["inline", "threads", "split"])
def test_other_models_are_loaded_and_unloaded_beside_a_load_that_never_ends(
    tmp_path: Path, processes: str
) -> None:
    repository = models.repository(tmp_path, {"served": models.scale(2.0)})
    with (
        ready_process(repository, "--processes", processes) as (process, where),
        grpc.insecure_channel(f"127.0.0.1:{where['grpc_port']}") as channel,
    ):
        # A pipe that nobody writes into: reading it never ends.
        (repository / "stuck" / "1").mkdir(parents=True)
        os.mkfifo(repository / "stuck" / "1" / "model.onnx")
        models.repository(repository, {"other": models.scale(3.0)})
        stub = GRPCInferenceServiceStub(channel)
        stuck = stub.RepositoryModelLoad.future(oip.RepositoryModelLoadRequest(model_name="stuck"))
        process.wait_for("loading")
        load = oip.RepositoryModelLoadRequest(model_name="other")
        stub.RepositoryModelLoad(load, timeout=PATIENCE)
        unload = oip.RepositoryModelUnloadRequest(model_name="served")
        stub.RepositoryModelUnload(unload, timeout=PATIENCE)
        answer = stub.ModelInfer(infer_request("other", rows(1.0)), timeout=PATIENCE)
        assert arrays(answer)["OUTPUT0"][0, 0] == 3
        stuck.cancel()
        process.terminate()
        assert process.exit_code() == 0
