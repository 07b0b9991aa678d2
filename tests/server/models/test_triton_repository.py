"""Repositories laid out for Triton: served as they are, or refused with the reason."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd.oip.v2 import inference_pb2 as oip
from inferd_server.errors import SettingsError
from inferd_server.explain import triton_models
from inferd_server.models.config import QueuePolicyConfig, ResponseCacheConfig
from inferd_server.models.layout import ModelSource, read_source
from onnx import helper

from tests import models
from tests.server.serving import Running, arrays, infer_request, running, running_split

DENSENET = """
name: "densenet_onnx"
platform: "onnxruntime_onnx"
max_batch_size : 0
input [
  {
    name: "data_0"
    data_type: TYPE_FP32
    format: FORMAT_NCHW
    dims: [ 3, 8, 8 ]
    reshape { shape: [ 1, 3, 8, 8 ] }
  }
]
output [
  {
    name: "fc6_1"
    data_type: TYPE_FP32
    dims: [ 3 ]
    reshape { shape: [ 1, 3, 1, 1 ] }
    label_filename: "densenet_labels.txt"
  }
]
"""
SIMPLE = """
backend: "onnxruntime"
max_batch_size: 8
input [
  { name: "INPUT0" data_type: TYPE_INT32 dims: [ 16 ] },
  { name: "INPUT1" data_type: TYPE_INT32 dims: [ 16 ] }
]
output [
  { name: "OUTPUT0" data_type: TYPE_INT32 dims: [ 16 ] },
  { name: "OUTPUT1" data_type: TYPE_INT32 dims: [ 16 ] }
]
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 100
}
instance_group [ { count: 2 kind: KIND_CPU } ]
"""
STRINGS = """
name: "simple_string"
platform: "onnxruntime_onnx"
max_batch_size: 8
input { name: "INPUT0" data_type: TYPE_STRING dims: 16 }
output { name: "OUTPUT0" data_type: TYPE_STRING dims: 16 }
"""
WORDS = (
    *("name", "input", "max_batch_size", "dynamic_batching", "instance_group", "parameters"),
    *("version_policy", "latest", "priority_levels", "count", "key", "value", "dims"),
    *("{", "}", "[", "]", ":", ",", "-1", "0", "8", "99999999999999999999", '"m"', "true", "1e9"),
)
SCALARS = """
max_batch_size: 8
input { name: "INPUT0" data_type: TYPE_FP32 reshape { shape: [ 1 ] } }
output { name: "OUTPUT0" data_type: TYPE_FP32 reshape { shape: [ 1 ] } }
"""
PAIRS = """
max_batch_size: 8
input { name: "INPUT0" data_type: TYPE_FP32 dims: [ -1, 2 ] reshape { shape: [ -1, 1, 2 ] } }
output { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1, 2 ] reshape { shape: [ -1, 1, 2 ] } }
"""
SEQUENCE = """
name: "simple_sequence"
backend: "sequence"
max_batch_size: 8
model_transaction_policy { decoupled: False }
sequence_batching { max_sequence_idle_microseconds: 5000000 }
"""
ENSEMBLE = """
name: "preprocess_inception_ensemble"
platform: "ensemble"
max_batch_size: 1
ensemble_scheduling {
  step [
    { model_name: "preprocess" model_version: -1
      input_map { key: "RAW" value: "INPUT" } output_map { key: "OUT" value: "image" } },
    { model_name: "inception_onnx" model_version: -1
      input_map { key: "input" value: "image" } output_map { key: "Softmax" value: "CLASS" } }
  ]
}
"""


def densenet() -> onnx.ModelProto:
    """fc6_1 FP32 [1,3,1,1] is the mean of each channel of data_0 FP32 [1,3,8,8]."""
    node = helper.make_node("GlobalAveragePool", ["data_0"], ["fc6_1"])
    ends = (
        models.tensor("data_0", "FP32", (1, 3, 8, 8)),
        models.tensor("fc6_1", "FP32", (1, 3, 1, 1)),
    )
    return models.model([node], ends[:1], ends[1:])


def put(
    root: Path, name: str, text: str, proto: onnx.ModelProto | None = None, file: str = ""
) -> Path:
    """Lay a model out as Triton does; without a proto, its version is an empty folder."""
    folder = root / name
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(text)
    if proto is not None:
        models.save(proto, folder / "1" / (file or "model.onnx"))
    return folder


@pytest.fixture(scope="module", params=[running, running_split], ids=["one process", "split"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """Serve the example models of Triton, in a repository as its own."""
    root = tmp_path_factory.mktemp("triton")
    folder = put(root, "densenet_onnx", DENSENET, densenet())
    (folder / "densenet_labels.txt").write_text("PLANE\nCAR\nBIRD\n")
    put(root, "simple", SIMPLE, models.add_sub())
    put(root, "simple_string", STRINGS, models.identity("BYTES", dims=("batch", 16)))
    put(root, "simple_sequence", SEQUENCE)
    put(root, "preprocess_inception_ensemble", ENSEMBLE)
    put(root, "scalars", SCALARS, models.identity("FP32", dims=("batch", 1)))
    put(root, "pairs", PAIRS, models.identity("FP32", dims=("batch", "n", 1, 2)))
    with request.param(root, strict_readiness="false") as server:
        yield server


def test_densenet_onnx_is_served_with_its_labels(served: Running) -> None:
    image = np.zeros((3, 8, 8), np.float32)
    image[2] = 1
    told = arrays(served.infer(infer_request("densenet_onnx", {"data_0": image})))
    assert told["fc6_1"].tolist() == [0, 0, 1]
    request = infer_request("densenet_onnx", {"data_0": image}, outputs=("fc6_1",))
    request.outputs[0].parameters["classification"].int64_param = 1
    assert arrays(served.infer(request))["fc6_1"].tolist() == [b"1.000000:2:BIRD"]


def test_a_scalar_for_each_row_is_a_column_of_the_model(served: Running) -> None:
    counts = np.array([3, 4], np.float32)
    told = arrays(served.infer(infer_request("scalars", {"INPUT0": counts})))["OUTPUT0"]
    assert told.tolist() == [3, 4]


def test_free_dimensions_keep_their_sizes_in_another_shape(served: Running) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    told = arrays(served.infer(infer_request("pairs", {"INPUT0": rows})))["OUTPUT0"]
    assert told.tolist() == rows.tolist()


def test_simple_is_served_with_its_batching(served: Running) -> None:
    ones = np.ones((1, 16), np.int32)
    told = arrays(served.infer(infer_request("simple", {"INPUT0": ones, "INPUT1": ones})))
    assert told["OUTPUT0"].tolist() == [[2] * 16]
    config = served.stub.ModelConfig(oip.ModelConfigRequest(name="simple")).config
    assert (config.max_batch_size, config.instance_group[0].count) == (8, 2)
    assert config.dynamic_batching.max_queue_delay_microseconds == 100


def test_simple_string_is_served(served: Running) -> None:
    texts = np.array([[b"a"] * 16], object)
    told = arrays(served.infer(infer_request("simple_string", {"INPUT0": texts})))
    assert told["OUTPUT0"].tolist() == texts.tolist()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("simple_sequence", "backend is 'sequence', and only 'onnxruntime' is served here"),
        ("preprocess_inception_ensemble", "ensembles are not served"),
    ],
)
def test_what_is_not_served_is_refused_by_name(served: Running, name: str, why: str) -> None:
    index = served.stub.RepositoryIndex(oip.RepositoryIndexRequest()).models
    (one,) = [model for model in index if model.name == name]
    assert one.state == "UNAVAILABLE"
    assert why in one.reason


def read(tmp_path: Path, text: str, *, yaml: str = "", versions: int = 1) -> ModelSource:
    folder = put(tmp_path, "m", text, models.scale(2.0))
    for version in range(2, versions + 1):
        shutil.copytree(folder / "1", folder / str(version))
    if yaml:
        (folder / "model.yaml").write_text(yaml)
    return read_source(tmp_path, "m")


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("", "max_batch_size", None),
        ("max_batch_size: 0", "max_batch_size", 0),
        ('input { name: "INPUT0" dims: 4 }', "max_batch_size", 0),
        ("dynamic_batching { preferred_batch_size: [2, 8] }", "preferred_batch_size", [2, 8]),
        ("dynamic_batching { max_queue_delay_microseconds: 1500 }", "max_queue_delay_ms", 1.5),
        ("dynamic_batching { priority_levels: 3 }", "priority_levels", 3),
        (
            "dynamic_batching { priority_levels: 3 default_priority_level: 2 }",
            "default_priority",
            2,
        ),
        (
            "max_batch_size: 4 dynamic_batching { default_queue_policy { max_queue_size: 10 } }",
            "max_queue_rows",
            14,
        ),
        (
            "dynamic_batching { priority_levels: 2 priority_queue_policy "
            "{ key: 2 value { max_queue_size: 5 } } }",
            "priority_queue_rows",
            {2: 6},
        ),
        (
            "dynamic_batching { default_queue_policy "
            "{ timeout_action: DELAY default_timeout_microseconds: 1500 } }",
            "queue_policy",
            QueuePolicyConfig(
                default_timeout_ms=1.5, timeout_action="delay", allow_timeout_override=False
            ),
        ),
        (
            "dynamic_batching { priority_levels: 2 priority_queue_policy "
            "{ key: 1 value { allow_timeout_override: true } } }",
            "priority_queue_policy",
            {1: QueuePolicyConfig()},
        ),
        ('instance_group [ { count: 2 }, { name: "b" } ]', "instances", 3),
        ("instance_group { gpus: [ 1, 0 ] }", "gpus", [0, 1]),
        ("instance_group { gpus: 0 } instance_group { gpus: 2 }", "gpus", [0, 2]),
        ("instance_group { count: 2 }", "gpus", None),
        ("instance_group { count: 2 gpus: [ 0, 1 ] }", "instances", 2),
        (
            "instance_group { count: 2 gpus: [ 0, 1 ] } instance_group { count: 3 gpus: 1 } "
            "instance_group { count: 1 }",
            "instances",
            6,
        ),
        ("version_policy { all {} }", "versions", "all"),
        ("version_policy { latest { num_versions: 2 } }", "versions", "latest:2"),
        ("version_policy { latest {} }", "versions", "latest"),
        ("version_policy { specific { versions: [1, 3] } }", "versions", [1, 3]),
        ("response_cache { enable: true }", "response_cache", ResponseCacheConfig()),
        (
            'max_batch_size: 4 model_warmup { name: "w" batch_size: 9 inputs { key: "INPUT0" '
            "value { data_type: TYPE_FP32 dims: 4 zero_data: true } } }",
            "warm_up",
            [4],
        ),
        (
            'parameters { key: "session.set_denormal_as_zero" value { string_value: "1" } } '
            'parameters { key: "enable_mem_arena" value { string_value: "0" } }',
            "engine_options",
            {"session.set_denormal_as_zero": "1", "cpu_arena": "0"},
        ),
        ('model_operations { op_library_filename: "ops.so" }', "custom_ops", ["ops.so"]),
        ('input { name: "INPUT0" format: FORMAT_NHWC }', "format", {"INPUT0": "NHWC"}),
    ],
)
def test_a_field_becomes_a_setting(tmp_path: Path, text: str, name: str, expected: object) -> None:
    source = read(tmp_path, text, versions=3)
    assert getattr(source.config, name) == expected
    assert source.without_effect == ()


def test_a_model_with_sequences_is_on_the_first_gpu_that_is_named(tmp_path: Path) -> None:
    text = """
    sequence_batching { control_input { name: "S" control { kind: CONTROL_SEQUENCE_START } } }
    instance_group { gpus: [ 2, 1 ] }
    """
    assert read(tmp_path, text).config.gpus == [1]


def test_gpus_of_a_group_for_the_processor_mean_nothing(tmp_path: Path) -> None:
    source = read(tmp_path, "instance_group { kind: KIND_CPU gpus: [ 0 ] }")
    assert (source.config.gpus, source.config.instances) == (None, 1)


def test_sequences_are_taken_with_their_controls_and_states(tmp_path: Path) -> None:
    text = """
    sequence_batching {
      max_sequence_idle_microseconds: 5000000
      control_input [
        { name: "START" control [ { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } ] },
        { name: "ID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] }
      ]
      state [ { input_name: "S_IN" output_name: "S_OUT" data_type: TYPE_FP32 dims: [ 4 ]
                initial_state { data_type: TYPE_FP32 dims: [ 4 ] zero_data: true name: "zero" } } ]
      oldest { max_candidate_sequences: 4 max_queue_delay_microseconds: 100 }
    }
    instance_group { count: 2 }
    """
    source = read(tmp_path, text)
    sequence = source.config.sequence
    assert sequence is not None
    assert [(one.kind, one.input) for one in sequence.controls] == [
        ("start", "START"), ("correlation_id", "ID"),
    ]  # fmt: skip
    assert [(one.input, one.output) for one in sequence.states] == [("S_IN", "S_OUT")]
    assert (sequence.idle_s, sequence.max_sequences) == (5.0, 4)
    assert (source.config.max_queue_delay_ms, source.config.instances) == (0.1, 2)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("optimization { cuda { graphs: true } }", "optimization.cuda.graphs"),
        (
            "optimization { execution_accelerators { gpu_execution_accelerator : "
            '[ { name : "tensorrt" } ] } }',
            "optimization.execution_accelerators.gpu_execution_accelerator.name",
        ),
        ("dynamic_batching { preserve_ordering: true }", "dynamic_batching.preserve_ordering"),
        ("instance_group { kind: KIND_GPU }", "instance_group.kind"),
        (
            'cc_model_filenames { key: "7.5" value: "model_75.onnx" }',
            "cc_model_filenames",
        ),
        (
            'parameters { key: "intra_op_thread_count" value { string_value: "2" } }',
            "parameters.intra_op_thread_count",
        ),
        ("sequence_batching { direct { max_queue_delay_microseconds: 9 } }",
         "sequence_batching.direct.max_queue_delay_microseconds"),
        ('metric_tags { key: "a" value: "b" }', "metric_tags"),
    ],
)  # fmt: skip
def test_what_changes_no_answer_is_passed_over_by_name(
    tmp_path: Path, text: str, field: str
) -> None:
    assert field in read(tmp_path, text).without_effect


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('backend: "python"', "backend is 'python', and only 'onnxruntime' is served here"),
        ('platform: "tensorrt_plan"', "platform is 'tensorrt_plan', and only 'onnxruntime_onnx'"),
        ('name: "other"', "name is 'other', and the folder is 'm'"),
        ("model_transaction_policy { decoupled: true }", "each request has one answer here"),
        (
            'input { name: "a" dims: [2, 3] reshape { shape: [ 5 ] } }',
            "reshape of input 'a': dims [2, 3] and shape [5] do not have the same elements",
        ),
        ('output { name: "a" dims: [-1, 2] reshape { shape: [ 2 ] } }', "reshape of output 'a'"),
        ('input { name: "a" allow_ragged_batch: true }', "input.allow_ragged_batch"),
        ('batch_input { kind: BATCH_ELEMENT_COUNT target_name: "n" }', "batch_input: requests"),
        ('model_repository_agents { agents { name: "checksum" } }', "model_repository_agents"),
        ("sequence_batching { iterative_sequence: true }", "iterative_sequence"),
        (
            'sequence_batching { state { initial_state { data_file: "x" } } }',
            "states begin as zeros here",
        ),
        ('default_model_filename: "../x.onnx"', "is no name of a file"),
        ('output { name: "a" label_filename: "../x" }', "leads elsewhere"),
        ('output { name: "a" label_filename: "no.txt" }', "no.txt cannot be read: No such file"),
        ('model_operations { op_library_filename: "/x/ops.so" }', "nor a file such as ops.so"),
        ("dynamic_batching { priority_levels: 99 }", "priority_levels"),
        ("max_batch_size: -1", "max_batch_size: Input should be greater than or equal to 0"),
    ],
)
def test_what_would_change_answers_is_refused_with_the_reason(
    tmp_path: Path, text: str, why: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    assert why in str(caught.value)
    assert str(tmp_path / "m") in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('name: "m"\nmax_batch_sise: 8\n', 2),
        ('name: "m"\n\ninput [\n  { name: 7 }\n]', 4),
        ("input [\n{ data_type: TYPE_FLOAT }\n]", 2),
        ("dynamic_batching {", 1),
        ("{}", 1),
        ("max_batch_size: many", 1),
    ],
)
def test_what_is_no_pbtxt_is_refused_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(SettingsError, match=f"config.pbtxt, line {line}: "):
        read(tmp_path, text)


@given(st.text(max_size=60) | st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join))
def test_whatever_a_pbtxt_holds_it_is_taken_or_refused_with_a_sentence(text: str) -> None:
    # Anything else that is raised fails the test.
    with TemporaryDirectory() as folder, suppress(SettingsError):
        read(Path(folder), text)


def test_a_pbtxt_that_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = put(tmp_path, "m", "")
    (folder / "config.pbtxt").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="is not text in UTF-8"):
        read_source(tmp_path, "m")


def test_what_model_yaml_says_goes_before_the_pbtxt(tmp_path: Path) -> None:
    source = read(tmp_path, SIMPLE, yaml="max_batch_size: 2\nweight: 3.0")
    assert (source.config.max_batch_size, source.config.weight) == (2, 3.0)
    assert source.config.preferred_batch_size == [4, 8]


def test_another_name_of_the_file_is_taken(tmp_path: Path) -> None:
    put(tmp_path, "m", 'default_model_filename: "net.onnx"', models.scale(3.0), "net.onnx")
    with running(tmp_path) as server:
        ones = {"INPUT0": np.ones((1, 4), np.float32)}
        assert arrays(server.infer(infer_request("m", ones)))["OUTPUT0"].tolist() == [[3.0] * 4]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('input { name: "X" data_type: TYPE_FP32 dims: 4 }', "there is no input 'X'; there are"),
        ('input { name: "INPUT0" data_type: TYPE_INT8 dims: 4 }', "declared as INT8"),
        ('input { name: "INPUT0" dims: 5 }', "dims [5], and the model has [4] behind the batch"),
        ('input { name: "INPUT0" dims: [4, 4] }', "dims [4, 4], and the model has [4]"),
        ('output { name: "Y" dims: 4 }', "there is no output 'Y'"),
        (
            'input { name: "INPUT0" dims: 6 reshape { shape: [2, 3] } }',
            "reshape says that 'INPUT0'",
        ),
        ('input { name: "INPUT0" dims: 4 optional: true }', "declared as optional"),
    ],
)
def test_tensors_that_the_model_lacks_are_told_when_it_is_loaded(
    tmp_path: Path, text: str, why: str
) -> None:
    put(tmp_path, "m", f"max_batch_size: 8 {text}", models.scale(2.0))
    with running(tmp_path) as server:
        (one,) = server.stub.RepositoryIndex(oip.RepositoryIndexRequest()).models
        assert (one.state, why in one.reason) == ("UNAVAILABLE", True)


REST = (
    'input { name: "INPUT0" dims: 4 reshape { shape: [1, 4] } } '
    'output { name: "OUTPUT0" dims: 4 reshape { shape: [1, 4] } }'
)


def test_who_loads_with_a_configuration_of_their_own_keeps_name_and_shapes(tmp_path: Path) -> None:
    text = f'default_model_filename: "net.onnx" max_batch_size: 8 {REST}'
    put(tmp_path, "m", text, models.identity("FP32", dims=("batch", 1, 4)), "net.onnx")
    with running(tmp_path) as server:
        request = oip.RepositoryModelLoadRequest(model_name="m")
        request.parameters["config"].string_param = '{"max_batch_size": 2}'
        server.stub.RepositoryModelLoad(request)
        told = server.stub.ModelConfig(oip.ModelConfigRequest(name="m")).config
        assert (told.max_batch_size, list(told.input[0].dims)) == (2, [4])


def test_a_changed_pbtxt_counts_for_the_next_load(tmp_path: Path) -> None:
    folder = put(tmp_path, "m", "max_batch_size: 8", models.scale(2.0))
    with running(tmp_path) as server:
        (folder / "config.pbtxt").write_text("max_batch_size: 4")
        server.stub.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="m"))
        told = server.stub.ModelConfig(oip.ModelConfigRequest(name="m")).config
        assert told.max_batch_size == 4


def test_explain_tells_what_is_taken_and_what_is_not(tmp_path: Path) -> None:
    put(tmp_path, "e", ENSEMBLE.replace("preprocess_inception_ensemble", "e"))
    put(
        tmp_path,
        "m",
        "max_batch_size: 8 optimization { priority: PRIORITY_MAX }",
        models.scale(2.0),
    )
    models.save(models.scale(2.0), tmp_path / "plain/1/model.onnx")
    (ensemble, model) = triton_models(tmp_path)
    assert ensemble[:2] == ("e", "not served")
    assert "ensembles are not served" in ensemble[2]
    assert model == ("m", "max_batch_size: 8", "without effect: optimization.priority")
