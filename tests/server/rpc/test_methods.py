"""What the server tells of itself and its models: every word of it is true."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import numpy as np
import pytest
from inferd.oip.v2 import inference_pb2 as oip
from inferd.v1 import server_pb2
from inferd.v1.server_pb2_grpc import ServerServiceStub
from inferd_server.rpc.control import control_allowed
from inferd_server.version import VERSION

from tests import models
from tests.server.serving import (
    PATIENCE,
    FakeEngines,
    Running,
    arrays,
    failure,
    infer_request,
    rows,
    running,
    running_fake,
    running_split,
)

Start = Callable[..., AbstractContextManager[Running]]


def statistics(server: Running, name: str = "", version: str = "") -> list[oip.ModelStatistics]:
    request = oip.ModelStatisticsRequest(name=name, version=version)
    return list(server.stub.ModelStatistics(request, timeout=PATIENCE).model_stats)


def index(server: Running, *, ready: bool = False) -> list[tuple[str, str, str]]:
    answer = server.stub.RepositoryIndex(oip.RepositoryIndexRequest(ready=ready), timeout=PATIENCE)
    return [(entry.name, entry.version, entry.state) for entry in answer.models]


def load(server: Running, model: str, **fields: object) -> None:
    request = oip.RepositoryModelLoadRequest(model_name=model, **fields)
    server.stub.RepositoryModelLoad(request, timeout=PATIENCE)


def unload(server: Running, model: str, **fields: object) -> None:
    request = oip.RepositoryModelUnloadRequest(model_name=model, **fields)
    server.stub.RepositoryModelUnload(request, timeout=PATIENCE)


def ready(server: Running, name: str, version: str = "") -> bool:
    request = oip.ModelReadyRequest(name=name, version=version)
    return bool(server.stub.ModelReady(request, timeout=PATIENCE).ready)


def test_the_server_names_itself_and_what_it_can_do(served: Running) -> None:
    answer = served.stub.ServerMetadata(oip.ServerMetadataRequest(), timeout=PATIENCE)
    assert (answer.name, answer.version) == ("inferd", VERSION)
    assert "system_shared_memory" in answer.extensions
    assert not {"cuda_shared_memory", "trace"} & set(answer.extensions)


def test_liveness_and_readiness(served: Running) -> None:
    assert served.stub.ServerLive(oip.ServerLiveRequest(), timeout=PATIENCE).live
    assert served.stub.ServerReady(oip.ServerReadyRequest(), timeout=PATIENCE).ready
    assert ready(served, "simple")
    assert ready(served, "scaled", "1")
    assert not ready(served, "scaled", "2")
    assert not ready(served, "nope")


def test_before_loading_the_server_is_live_and_not_ready(tmp_path: Path) -> None:
    models.repository(tmp_path, {"simple": models.add_sub()})
    with running(tmp_path, load=False) as server:
        assert server.stub.ServerLive(oip.ServerLiveRequest(), timeout=PATIENCE).live
        assert not server.stub.ServerReady(oip.ServerReadyRequest(), timeout=PATIENCE).ready
        error = server.refused(infer_request("simple", {}))
        assert error.code() == grpc.StatusCode.NOT_FOUND


def test_metadata_describes_the_tensors(served: Running) -> None:
    answer = served.stub.ModelMetadata(oip.ModelMetadataRequest(name="simple"), timeout=PATIENCE)
    assert (answer.name, list(answer.versions)) == ("simple", ["1"])
    assert [(t.name, t.datatype, list(t.shape)) for t in answer.inputs] == [
        ("INPUT0", "INT32", [-1, 16]),
        ("INPUT1", "INT32", [-1, 16]),
    ]
    assert [t.name for t in answer.outputs] == ["OUTPUT0", "OUTPUT1"]


def test_metadata_lists_every_version_that_serves(served: Running) -> None:
    answer = served.stub.ModelMetadata(oip.ModelMetadataRequest(name="scaled"), timeout=PATIENCE)
    assert list(answer.versions) == ["1", "3"]


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelConfig", "ModelStatistics"])
def test_an_unknown_model_or_version_is_not_found(served: Running, method: str) -> None:
    request = getattr(oip, f"{method}Request")
    call = getattr(served.stub, method)
    for name, version in [("nope", ""), ("simple", "7")]:
        error = failure(lambda: call(request(name=name, version=version), timeout=PATIENCE))  # noqa: B023
        assert error.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("model", "max_batch_size", "dims"),
    [("simple", 32, [16]), ("no_batch", 0, [3, 4]), ("free", 32, [-1])],
)
def test_the_configuration_says_how_a_model_is_served(
    served: Running, model: str, max_batch_size: int, dims: list[int]
) -> None:
    config = served.stub.ModelConfig(oip.ModelConfigRequest(name=model), timeout=PATIENCE).config
    assert config.max_batch_size == max_batch_size
    assert list(config.input[0].dims) == dims
    assert config.HasField("dynamic_batching") == (max_batch_size > 0)
    assert config.instance_group[0].count == 1
    assert config.parameters["engine"].string_value == "onnxruntime/CPUExecutionProvider"
    assert config.parameters["batch_reason"].string_value


def test_the_configuration_tells_the_format_of_an_image(served: Running) -> None:
    config = served.stub.ModelConfig(oip.ModelConfigRequest(name="images"), timeout=PATIENCE).config
    assert config.input[0].format == config.input[0].FORMAT_NCHW
    assert list(config.input[0].dims) == [3, 8, 8]
    config = served.stub.ModelConfig(oip.ModelConfigRequest(name="simple"), timeout=PATIENCE).config
    assert config.input[0].format == config.input[0].FORMAT_NONE


def test_strings_are_type_string_in_the_configuration(served: Running) -> None:
    config = served.stub.ModelConfig(
        oip.ModelConfigRequest(name="strings"), timeout=PATIENCE
    ).config
    kind = config.DESCRIPTOR.fields_by_name["input"].message_type.fields_by_name["data_type"]
    assert kind.enum_type.values_by_number[config.input[0].data_type].name == "TYPE_STRING"


def test_statistics_count_what_happened_by_the_time_the_answer_is_here(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, _):
        (before,) = statistics(server, "fake")
        assert (before.inference_count, before.execution_count) == (0, 0)
        for count in range(1, 51):
            server.infer(infer_request("fake", rows(1.0, 2.0, 3.0)))
            (now,) = statistics(server, "fake", "1")
            assert (now.inference_count, now.execution_count) == (3 * count, count)
            assert now.inference_stats.success.count == count
        server.refused(infer_request("fake", {"NOPE": np.zeros((1, 4), np.float32)}))
        (after,) = statistics(server)
        assert after.inference_stats.fail.count == 0
        assert after.inference_stats.success.count == 50
        assert after.inference_stats.success.ns >= after.inference_stats.compute_infer.ns > 0
        assert [(b.batch_size, b.compute_infer.count) for b in after.batch_stats] == [(3, 50)]
        assert after.last_inference > 1.7e12


@pytest.mark.parametrize("start", [running, running_split], ids=["one process", "split"])
def test_callers_load_and_unload_models_on_a_loopback_host(tmp_path: Path, start: Start) -> None:
    models.repository(tmp_path, {"scaled": models.scale(2.0), "simple": models.add_sub()})
    with start(tmp_path) as server:
        unload(server, "scaled")
        assert index(server) == [("scaled", "1", "UNAVAILABLE"), ("simple", "1", "READY")]
        assert index(server, ready=True) == [("simple", "1", "READY")]
        error = server.refused(infer_request("scaled", rows(1.0)))
        assert error.code() == grpc.StatusCode.NOT_FOUND
        assert "'scaled' was unloaded" in error.details()
        models.repository(tmp_path, {"scaled": {2: models.scale(5.0)}})
        load(server, "scaled")
        response = server.infer(infer_request("scaled", rows(1.0)))
        assert response.model_version == "2"
        assert arrays(response)["OUTPUT0"][0, 0] == 5
        assert not ready(server, "scaled", "1")
        error = server.refused(infer_request("scaled", rows(1.0), version="1"))
        assert error.code() == grpc.StatusCode.NOT_FOUND
        assert "version 1 of model 'scaled' was unloaded" in error.details()


def test_a_load_that_fails_says_why_and_leaves_what_serves(tmp_path: Path) -> None:
    models.repository(tmp_path, {"scaled": models.scale(2.0)})
    with running(tmp_path) as server:
        (tmp_path / "scaled" / "1" / "model.onnx").write_bytes(b"no model")
        error = failure(lambda: load(server, "scaled"))
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert "cannot be loaded" in error.details()
        assert arrays(server.infer(infer_request("scaled", rows(1.0))))["OUTPUT0"][0, 0] == 2


@pytest.mark.parametrize("action", [load, unload])
def test_an_unknown_model_can_be_neither_loaded_nor_unloaded(tmp_path: Path, action: type) -> None:
    with running_fake(tmp_path) as (server, _):
        error = failure(lambda: action(server, "nope"))
        assert error.code() == grpc.StatusCode.NOT_FOUND
        assert "'nope'" in error.details()


@pytest.mark.parametrize("action", [load, unload])
@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({"model_control": "off"}, False),
        ({"model_control": "on"}, True),
        ({"model_control": "auto"}, True),
    ],
)
def test_model_control_follows_its_setting(
    tmp_path: Path, settings: dict[str, str], allowed: bool, action: type
) -> None:
    with running_fake(tmp_path, **settings) as (server, _):
        if allowed:
            action(server, "fake")
            return
        error = failure(lambda: action(server, "fake"))
        assert error.code() == grpc.StatusCode.PERMISSION_DENIED
        assert "model_control" in error.details()
        assert ready(server, "fake")


@pytest.mark.parametrize(
    ("control", "host", "allowed"),
    [
        ("auto", "127.0.0.1", True),
        ("auto", "::1", True),
        ("auto", "localhost", True),
        ("auto", "0.0.0.0", False),
        ("auto", "::", False),
        ("auto", "10.0.0.1", False),
        ("auto", "inferd.example", False),
        ("on", "0.0.0.0", True),
        ("off", "127.0.0.1", False),
    ],
)
def test_without_a_setting_only_loopback_hosts_allow_control(
    control: str, host: str, allowed: bool
) -> None:
    assert control_allowed(control, host) is allowed


def test_another_repository_is_refused_and_not_ignored(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, _):
        error = failure(lambda: load(server, "fake", repository_name="other"))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_requests_are_answered_while_a_model_loads(tmp_path: Path) -> None:
    """Loading runs on a thread of its own; the transport's is free meanwhile."""
    engines = FakeEngines()
    with running_fake(tmp_path, engines) as (server, engine):
        engine.hold()
        running_request = server.stub.ModelInfer.future(
            infer_request("fake", rows(1.0)), timeout=PATIENCE
        )
        assert engine.running.wait(PATIENCE)
        unloading = server.stub.RepositoryModelUnload.future(
            oip.RepositoryModelUnloadRequest(model_name="fake"), timeout=PATIENCE
        )
        while index(server) != [("fake", "1", "UNLOADING")]:
            pass
        assert server.stub.ServerLive(oip.ServerLiveRequest(), timeout=PATIENCE).live
        assert not unloading.done()
        engine.release()
        assert arrays(running_request.result())["OUTPUT0"][0, 0] == 2
        unloading.result()
        assert index(server) == [("fake", "1", "UNAVAILABLE")]
        assert engine.closed


def test_a_model_that_is_gone_from_disk_serves_until_it_is_unloaded(tmp_path: Path) -> None:
    models.repository(tmp_path, {"scaled": models.scale(2.0)})
    with running(tmp_path) as server:
        shutil.rmtree(tmp_path / "scaled")
        assert arrays(server.infer(infer_request("scaled", rows(1.0))))["OUTPUT0"][0, 0] == 2


def test_status_tells_transport_engine_and_reasons(served: Running) -> None:
    stub = ServerServiceStub(served.channel)
    status = stub.Status(server_pb2.StatusRequest(), timeout=PATIENCE)
    # The server of one process was given aio; fronts choose for themselves.
    assert (status.version, status.transport) == (
        VERSION, "aio" if served.server else "completion_queue",
    )  # fmt: skip
    assert (status.ready, status.draining) == (True, False)
    assert status.uptime_seconds > 0
    by_name = {model.name: model for model in status.models}
    assert by_name["simple"].engine == "onnxruntime/CPUExecutionProvider"
    assert (by_name["simple"].max_batch_size, by_name["simple"].state) == (32, "READY")
    assert by_name["no_batch"].max_batch_size == 0
    assert "free dimension" in by_name["no_batch"].batch_reason


def trace(server: Running, **settings: list[str]) -> dict[str, list[str]]:
    value = oip.TraceSettingRequest.SettingValue
    request = oip.TraceSettingRequest(settings={k: value(value=v) for k, v in settings.items()})
    answer = server.stub.TraceSetting(request, timeout=PATIENCE)
    return {name: list(setting.value) for name, setting in answer.settings.items()}


def test_tracing_is_off_and_says_so(served: Running) -> None:
    assert trace(served)["trace_level"] == ["OFF"]
    assert trace(served, trace_level=["OFF"])["trace_level"] == ["OFF"]
    error = failure(lambda: trace(served, trace_level=["TIMESTAMPS"]))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    assert failure(lambda: trace(served, nope=["1"])).code() == grpc.StatusCode.INVALID_ARGUMENT
    assert trace(served)["trace_level"] == ["OFF"]


def logs(server: Running, **settings: dict[str, object]) -> dict[str, object]:
    value = oip.LogSettingsRequest.SettingValue
    request = oip.LogSettingsRequest(settings={k: value(**v) for k, v in settings.items()})
    answer = server.stub.LogSettings(request, timeout=PATIENCE)
    return {
        name: getattr(setting, setting.WhichOneof("parameter_choice"))
        for name, setting in answer.settings.items()
    }


def test_log_settings_change_what_they_say(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, _):
        try:
            assert logs(server, log_verbose_level={"uint32_param": 1})["log_verbose_level"] == 1
            changed = logs(
                server, log_verbose_level={"uint32_param": 0}, log_info={"bool_param": False}
            )
            assert (changed["log_info"], changed["log_warning"]) == (False, True)
        finally:
            logs(server, log_info={"bool_param": True})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nope", {"bool_param": True}),
        ("log_file", {"string_param": "/tmp/log"}),
        ("log_info", {"string_param": "yes"}),
    ],
)
def test_a_log_setting_that_cannot_be_is_refused(
    served: Running, name: str, value: dict[str, object]
) -> None:
    before = logs(served)
    error = failure(lambda: logs(served, **{name: value}))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert name in error.details()
    assert logs(served) == before


def test_without_cuda_shared_memory_there_are_no_regions_to_list_or_to_forget(
    served: Running,
) -> None:
    everything = oip.CudaSharedMemoryStatusRequest()
    assert not served.stub.CudaSharedMemoryStatus(everything, timeout=PATIENCE).regions
    for name in ("", "input0_data"):
        request = oip.CudaSharedMemoryUnregisterRequest(name=name)
        assert served.stub.CudaSharedMemoryUnregister(request, timeout=PATIENCE).ByteSize() == 0


@pytest.mark.parametrize(
    ("method", "fields", "code"),
    [
        ("Status", {"name": "one"}, grpc.StatusCode.NOT_FOUND),
        ("Register", {"name": "one", "raw_handle": b"x"}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_what_needs_cuda_shared_memory_is_refused(
    served: Running, method: str, fields: dict[str, object], code: grpc.StatusCode
) -> None:
    request = getattr(oip, f"CudaSharedMemory{method}Request")(**fields)
    call = getattr(served.stub, f"CudaSharedMemory{method}")
    error = failure(lambda: call(request, timeout=PATIENCE))
    assert error.code() == code
    assert "CUDA shared memory" in error.details()


def test_what_names_an_unknown_model_or_repository_is_refused(served: Running) -> None:
    unknown = oip.TraceSettingRequest(model_name="nope")
    error = failure(lambda: served.stub.TraceSetting(unknown, timeout=PATIENCE))
    assert (error.code(), "'nope'" in error.details()) == (grpc.StatusCode.NOT_FOUND, True)
    known = oip.TraceSettingRequest(model_name="simple")
    assert served.stub.TraceSetting(known, timeout=PATIENCE).settings
    other = oip.RepositoryIndexRequest(repository_name="other")
    error = failure(lambda: served.stub.RepositoryIndex(other, timeout=PATIENCE))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "'other'" in error.details()
