"""Every row of docs/triton.md is true of this server."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
from inferd.oip.v2 import inference_pb2 as oip
from inferd_server.inference.classification import MOST_CLASSES

from tests import models
from tests.server.serving import PATIENCE, Running, infer_request, rows, running, running_split

PAGE = (Path(__file__).parents[2] / "docs/triton.md").read_text()
SIZE = 64


def table(title: str) -> dict[str, Sequence[str]]:
    """Return the cells behind the first one of each row below a title, by the first one."""
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first: rest for first, *rest in cells}


def quoted(cell: str) -> str:
    """Return what stands in backticks first."""
    found = re.search("`(.*?)`", cell)
    assert found is not None, cell
    return found[1]


@pytest.fixture(scope="module", params=[running, running_split], ids=["one process", "split"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    repository = models.repository(
        tmp_path_factory.mktemp("models"),
        {
            "simple": models.add_sub(),
            "scaled": models.scale(2.0),
            "int8": models.identity("INT8"),
            "summing": models.summing(),
        },
        {"summing": models.SUMMING, "scaled": "max_queue_rows: 3\nmax_batch_size: 2\n"},
    )
    with request.param(repository) as server:
        yield server


@pytest.fixture(scope="module")
def segment() -> Iterator[str]:
    path = Path("/dev/shm") / KEY
    path.write_bytes(bytes(SIZE))
    yield path.name
    path.unlink()


def simple(**changes: np.ndarray) -> oip.ModelInferRequest:
    inputs = {name: np.zeros((1, 16), np.int32) for name in ("INPUT0", "INPUT1")}
    return infer_request("simple", {**inputs, **changes})


def changed(**fields: object) -> oip.ModelInferRequest:
    request = simple()
    for name, value in fields.items():
        setattr(request, name, value)
    return request


def typed_beyond_its_range() -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name="int8")
    given = request.inputs.add(name="INPUT0", datatype="INT8", shape=[1, 4])
    given.contents.int_contents.extend([300] * 4)
    return request


def empty_contents() -> oip.ModelInferRequest:
    request = simple()
    request.inputs[0].contents.SetInParent()
    return request


def with_parameter(name: str, value: int) -> oip.ModelInferRequest:
    request = simple()
    request.parameters[name].int64_param = value
    return request


def output_twice() -> oip.ModelInferRequest:
    request = simple()
    request.outputs.add(name="OUTPUT0").parameters["classification"].int64_param = 1
    request.outputs.add(name="OUTPUT0")
    return request


def region(name: str, key: str, size: int) -> oip.SystemSharedMemoryRegisterRequest:
    return oip.SystemSharedMemoryRegisterRequest(name=name, key=f"/{key}", byte_size=size)


def small_output() -> oip.ModelInferRequest:
    request = simple()
    parameters = request.outputs.add(name="OUTPUT0").parameters
    parameters["shared_memory_region"].string_param = "region"
    parameters["shared_memory_byte_size"].int64_param = SIZE - 1
    return request


def loading(model: str, config: str | None, *files: str) -> oip.RepositoryModelLoadRequest:
    request = oip.RepositoryModelLoadRequest(model_name=model)
    if config is not None:
        request.parameters["config"].string_param = config
    for file in files:
        request.parameters[f"file:{file}"].bytes_param = b""
    return request


def setting(kind: str, name: str, **value: object) -> oip.LogSettingsRequest:
    request = getattr(oip, f"{kind}SettingRequest" if kind == "Trace" else "LogSettingsRequest")
    return request(settings={name: request.SettingValue(**value)})


# Another run of these tests may be on the same machine.
KEY = f"inferd-docs-triton-{os.getpid()}"
CALLS: dict[str, tuple[str, Callable[[], object]]] = {
    "unload an unknown model": (
        "RepositoryModelUnload",
        lambda: oip.RepositoryModelUnloadRequest(model_name="absent"),
    ),
    "load an unknown model": ("RepositoryModelLoad", lambda: loading("absent", None)),
    "load with a configuration that cannot be used": (
        "RepositoryModelLoad",
        lambda: loading("simple", "no json"),
    ),
    "load with files and no configuration": (
        "RepositoryModelLoad",
        lambda: loading("simple", None, "1/model.onnx"),
    ),
    "infer with version `01`": ("ModelInfer", lambda: changed(model_version="01")),
    "statistics of an unknown model": (
        "ModelStatistics",
        lambda: oip.ModelStatisticsRequest(name="absent"),
    ),
    "trace settings of an unknown model": (
        "TraceSetting",
        lambda: oip.TraceSettingRequest(model_name="absent"),
    ),
    "change a trace setting": (
        "TraceSetting",
        lambda: setting("Trace", "trace_rate", value=["5"]),
    ),
    "change an unknown log setting": (
        "LogSettings",
        lambda: setting("Log", "loudness", bool_param=True),
    ),
    "change `log_file`": (
        "LogSettings",
        lambda: setting("Log", "log_file", string_param="/dev/null"),
    ),
    "index of a named repository": (
        "RepositoryIndex",
        lambda: oip.RepositoryIndexRequest(repository_name="other"),
    ),
    "register shared memory that is not there": (
        "SystemSharedMemoryRegister",
        lambda: region("other", "inferd-docs-absent", SIZE),
    ),
    "register more than a shared memory object has": (
        "SystemSharedMemoryRegister",
        lambda: region("other", KEY, SIZE + 1),
    ),
    "register shared memory without a name": (
        "SystemSharedMemoryRegister",
        lambda: region("", KEY, SIZE),
    ),
    "an output larger than its place in shared memory": ("ModelInfer", small_output),
    "typed contents outside their datatype (300 as INT8)": ("ModelInfer", typed_beyond_its_range),
    "empty `contents` beside raw contents": ("ModelInfer", empty_contents),
    "an unknown parameter that begins with `triton_`": (
        "ModelInfer",
        lambda: with_parameter("triton_unknown", 1),
    ),
    "an output asked for twice, with other parameters": ("ModelInfer", output_twice),
    "`timeout` shorter than the run": ("ModelInfer", lambda: with_parameter("timeout", 1)),
}


def test_every_status_of_the_page_is_tried() -> None:
    assert list(table("Statuses")) == list(CALLS)


@pytest.mark.parametrize("call", CALLS)
def test_a_call_has_the_status_that_the_page_says(served: Running, segment: str, call: str) -> None:
    method, request = CALLS[call]
    served.stub.SystemSharedMemoryUnregister(
        oip.SystemSharedMemoryUnregisterRequest(), timeout=PATIENCE
    )
    served.stub.SystemSharedMemoryRegister(region("region", segment, SIZE), timeout=PATIENCE)
    # What a run costs is known from the first one on.
    served.infer(simple())
    assert code(served, method, request()) == quoted(table("Statuses")[call][1])


def code(served: Running, method: str, request: object) -> str:
    try:
        getattr(served.stub, method)(request, timeout=PATIENCE)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def details(served: Running, request: oip.ModelInferRequest) -> str:
    return str(served.refused(request).details())


def unloaded(served: Running) -> str:
    unload = oip.RepositoryModelUnloadRequest(model_name="scaled")
    served.stub.RepositoryModelUnload(unload, timeout=PATIENCE)
    try:
        return details(served, infer_request("scaled", rows(1.0)))
    finally:
        load = oip.RepositoryModelLoadRequest(model_name="scaled")
        served.stub.RepositoryModelLoad(load, timeout=PATIENCE)


def without_one_input() -> oip.ModelInferRequest:
    return infer_request("simple", {"INPUT0": np.zeros((1, 16), np.int32)})


def batch(count: int) -> oip.ModelInferRequest:
    return simple(**{f"INPUT{i}": np.zeros((count, 16), np.int32) for i in range(2)})


def unknown_output() -> oip.ModelInferRequest:
    request = simple()
    request.outputs.add(name="X")
    return request


TEXTS: dict[str, Callable[[Running], str]] = {
    "unknown model": lambda served: details(served, infer_request("absent", rows(1.0))),
    "unloaded model": unloaded,
    "unknown input": lambda served: details(served, simple(X=np.zeros((1, 16), np.int32))),
    "missing input": lambda served: details(served, without_one_input()),
    "wrong shape": lambda served: details(served, simple(INPUT0=np.zeros((1, 15), np.int32))),
    "unknown output": lambda served: details(served, unknown_output()),
    "batch too large": lambda served: details(served, batch(33)),
}


def test_every_text_of_the_page_is_what_is_written(served: Running) -> None:
    written = table("Texts")
    assert list(written) == list(TEXTS)
    for mistake, text in TEXTS.items():
        assert quoted(written[mistake][1]) in text(served)


def metadata(served: Running) -> oip.ServerMetadataResponse:
    return served.stub.ServerMetadata(oip.ServerMetadataRequest(), timeout=PATIENCE)


def test_the_page_tells_the_name_and_the_missing_extensions(served: Running) -> None:
    told = table("What there is")
    assert metadata(served).name == quoted(told["name in the server's metadata"][1])
    missing = re.findall("`(.*?)`", told["extensions"][1])
    assert missing == ["cuda_shared_memory", "trace"]
    assert not set(missing) & set(metadata(served).extensions)


def test_the_page_tells_how_streams_are_answered(served: Running) -> None:
    told = table("What there is")["order of a stream's answers"][1]
    orders = re.findall("`(.*?)`", told)
    assert orders == ["request", "completion", "inferd-stream-order"]
    for order in orders[:2]:
        given = [("inferd-stream-order", order)]
        answers = served.stub.ModelStreamInfer(iter([simple()]), timeout=PATIENCE, metadata=given)
        assert [answer.error_message for answer in answers] == [""]


def test_the_page_tells_that_bounds_of_queues_count_rows(served: Running) -> None:
    assert quoted(table("What there is")["bound of a queue"][1]) == "rows"
    config = oip.ModelConfigRequest(name="scaled")
    found = served.stub.ModelConfig(config, timeout=PATIENCE).config
    policy = found.dynamic_batching.default_queue_policy
    assert policy.max_queue_size == 3
    told = quoted(table("What there is")["`allow_timeout_override`"][1])
    assert told == str(policy.allow_timeout_override).lower()


def test_the_page_tells_how_many_classes_one_output_may_have() -> None:
    assert quoted(table("What there is")["classes in one output"][1]) == str(MOST_CLASSES)
