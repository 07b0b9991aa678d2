"""Models on disk: folders, versions and model.yaml."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from inferd_server.errors import SettingsError
from inferd_server.models.config import ModelConfig, ResponseCacheConfig
from inferd_server.models.layout import (
    holds,
    is_version,
    model_names,
    name_of,
    read_source,
    select_versions,
    warnings_of,
)

VERSIONS = "versions: Input should be latest, latest:N, all, or a list of version numbers (it is "
WARM_UP = (
    "warm_up: Input should be a list of batch sizes from 1, or the name of an .npz file beside "
    "model.yaml (it is "
)


def folders(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
    return root


def configured(root: Path, text: str) -> Path:
    folders(root, "m/1", "m/2", "m/10")
    (root / "m" / "model.yaml").write_text(text, encoding="utf-8")
    return root


def refusal(root: Path, name: str = "m") -> str:
    with pytest.raises(SettingsError) as caught:
        read_source(root, name)
    return str(caught.value)


def test_models_are_the_visible_folders_sorted(tmp_path: Path) -> None:
    folders(tmp_path, "b", "a", ".git")
    (tmp_path / "README.md").write_text("not a model")
    assert model_names(tmp_path) == ("a", "b")


def test_a_folder_that_no_message_can_name_is_passed_over_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders(tmp_path, os.fsdecode(b"caf\xe9"), "caf\u00e9")
    assert model_names(tmp_path) == ("caf\u00e9",)
    (record,) = caplog.records
    assert vars(record)["passed_over"] == r"['caf\udce9']"


def test_a_link_to_a_folder_is_a_model(tmp_path: Path) -> None:
    folders(tmp_path, "elsewhere", "repository")
    (tmp_path / "repository" / "linked").symlink_to(tmp_path / "elsewhere")
    assert model_names(tmp_path / "repository") == ("linked",)


def test_a_repository_that_is_missing_or_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere cannot be read: No such file or directory"):
        model_names(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"file cannot be read: Not a directory"):
        model_names(tmp_path / "file")


@pytest.mark.parametrize(("name", "said"), [("m.pt", "PyTorch's"), ("m.pkl", "a Python object")])
def test_a_file_of_a_library_in_place_of_the_repository_is_told_with_what_to_do(
    name: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).touch()
    with pytest.raises(SettingsError, match=rf"{name} is {said}.*docs/exporting\.md"):
        model_names(tmp_path / name)


def test_the_latest_version_is_the_greatest_number(tmp_path: Path) -> None:
    folders(tmp_path, "m/9", "m/10")
    source = read_source(tmp_path, "m")
    assert source.name == "m"
    assert source.config == ModelConfig()
    assert source.versions == {10: tmp_path / "m" / "10" / "model.onnx"}


def test_only_folders_named_as_numbers_are_versions(tmp_path: Path) -> None:
    folders(tmp_path, "m/1", "m/02", "m/0", "m/-3", "m/v4", "m/\u0665", "m/assets")
    (tmp_path / "m" / "6").touch()
    (tmp_path / "m" / "model.yaml").write_text("versions: all")
    assert list(read_source(tmp_path, "m").versions) == [1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("1", True), ("10", True), ("0", False), ("01", False), ("", False), ("\u00b2", False)],
)
def test_a_version_is_a_positive_number_as_it_is_written(name: str, expected: bool) -> None:
    assert is_version(name) is expected


def test_a_model_without_a_version_is_refused(tmp_path: Path) -> None:
    folders(tmp_path, "m/assets")
    expected = f"{tmp_path / 'm'} has no version: a folder named 1, 2, ... was expected"
    assert refusal(tmp_path) == expected


def test_a_model_that_went_away_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path / 'm'} cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("latest", (10,)),
        ("latest:1", (10,)),
        ("latest:2", (2, 10)),
        ("latest:9", (1, 2, 10)),
        ("all", (1, 2, 10)),
        ([10, 1], (1, 10)),
        ([2, 2], (2,)),
    ],
)
def test_a_policy_selects_versions(policy: str | list[int], expected: tuple[int, ...]) -> None:
    assert select_versions([2, 10, 1], policy) == expected


def test_a_policy_that_names_a_missing_version_is_refused() -> None:
    with pytest.raises(SettingsError) as caught:
        select_versions([2, 10, 1], [4, 3, 1])
    assert str(caught.value) == "versions names 3, and there are 1, 2, 10"


def test_a_model_yaml_is_read(tmp_path: Path) -> None:
    text = """
        max_batch_size: 8
        max_queue_delay_ms: 2
        max_queue_rows: 64
        instances: 2
        warm_up: [1, 8]
        labels: {OUTPUT0: [cat, dog]}
        versions: [1, 10]
        engine_options: {session.intra_op.allow_spinning: "0"}
        response_cache: {ttl_s: 5, max_bytes: 1000}
    """
    source = read_source(configured(tmp_path, text), "m")
    config = source.config
    assert (config.max_batch_size, config.max_queue_delay_ms, config.max_queue_rows) == (8, 2.0, 64)
    assert (config.instances, list(config.warm_up or ())) == (2, [1, 8])
    assert config.labels == {"OUTPUT0": ["cat", "dog"]}
    assert config.engine_options == {"session.intra_op.allow_spinning": "0"}
    assert config.response_cache == ResponseCacheConfig(ttl_s=5.0, max_bytes=1000)
    assert list(source.versions) == [1, 10]


def test_an_empty_model_yaml_says_nothing(tmp_path: Path) -> None:
    assert read_source(configured(tmp_path, "# later\n"), "m").config == ModelConfig()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("max_batch: 8", "max_batch: unknown; known are custom_ops, default_priority, "),
        ("max_batch_size: -1", "max_batch_size: Input should be greater than or equal to 0"),
        ("max_batch_size: '8'", "max_batch_size: Input should be a valid integer (it is '8')"),
        ("max_batch_size: true", "max_batch_size: Input should be a valid integer (it is True)"),
        ("max_queue_delay_ms: .nan", "max_queue_delay_ms: "),
        ("max_queue_delay_ms: .inf", "max_queue_delay_ms: "),
        (
            "sequence: {}\npriority_levels: 2",
            "a model with sequences has one priority, and delays no request",
        ),
        ("sequence: {idle_s: 0}", "sequence.idle_s: Input should be greater than 0"),
        ("priority_levels: 17", "priority_levels: Input should be less than or equal to 16"),
        ("default_priority: 2", "default_priority is 2, and priority_levels 1"),
        ("priority_queue_rows: {3: 8}", "priority_queue_rows names 3, and priority_levels is 1"),
        ("max_queue_rows: 0", "max_queue_rows: Input should be greater than or equal to 1"),
        ("instances: 0", "instances: Input should be greater than or equal to 1"),
        ("instances: 257", "instances: Input should be less than or equal to 256"),
        ("instances:", "instances: Input should be a valid integer (it is None)"),
        ("warm_up: [0]", WARM_UP + "[0])"),
        ("warm_up: 8", WARM_UP + "8)"),
        ("warm_up: ../rows.npz", WARM_UP + "'../rows.npz')"),
        ("warm_up: rows.csv", WARM_UP + "'rows.csv')"),
        ("labels: [cat]", "labels: "),
        ("labels: {OUTPUT0: cat}", "labels.OUTPUT0: "),
        ("labels: {OUTPUT0: [yes]}", "labels.OUTPUT0.0: "),
        ("versions: newest", VERSIONS + "'newest')"),
        ("versions: []", VERSIONS + "[])"),
        ("versions: 1", VERSIONS + "1)"),
        ("versions: ['1']", VERSIONS + "['1'])"),
        ("engine_options: {threads: 1}", "engine_options.threads: "),
        ("response_cache: true", "response_cache: "),
        ("response_cache: {ttl: 5}", "response_cache.ttl: unknown; known are max_bytes, ttl_s"),
        ("response_cache: {ttl_s: 0}", "response_cache.ttl_s: Input should be greater than 0"),
        ("response_cache: {max_bytes: 0}", "response_cache.max_bytes: "),
    ],
)
def test_what_is_wrong_in_a_model_yaml_is_told(text: str, sentence: str, tmp_path: Path) -> None:
    path = configured(tmp_path, text) / "m" / "model.yaml"
    assert refusal(tmp_path).startswith(f"{path}: {sentence}")


def test_everything_wrong_in_a_model_yaml_is_told_at_once(tmp_path: Path) -> None:
    configured(tmp_path, "{instances: 0, warm_up: [0]}")
    assert "instances: " in refusal(tmp_path)
    assert "; warm_up: " in refusal(tmp_path)


@pytest.mark.parametrize("text", ["a: [", "a: 1\n a: 2", "a: 2026-13-45", "\x07"])
def test_a_model_yaml_that_is_not_yaml_is_told_on_one_line(text: str, tmp_path: Path) -> None:
    path = configured(tmp_path, text) / "m" / "model.yaml"
    message = refusal(tmp_path)
    assert message.startswith(f"{path} is not YAML: ")
    assert "\n" not in message


def test_a_model_yaml_that_is_a_folder_or_a_dead_link_is_refused(tmp_path: Path) -> None:
    folders(tmp_path, "m/1/", "m/model.yaml", "n/1")
    assert refusal(tmp_path).endswith("model.yaml cannot be read: Is a directory")
    (tmp_path / "n" / "model.yaml").symlink_to(tmp_path / "nowhere")
    assert refusal(tmp_path, "n").endswith("model.yaml cannot be read: No such file or directory")


def test_a_model_yaml_that_would_never_end_is_refused_at_once(tmp_path: Path) -> None:
    folders(tmp_path, "m/1/", "n/1/")
    os.mkfifo(tmp_path / "m" / "model.yaml")
    (tmp_path / "n" / "model.yaml").symlink_to("/dev/zero")
    for name in ("m", "n"):
        told = "model.yaml cannot be read: it is not a regular file"
        assert refusal(tmp_path, name).endswith(told)


def test_a_model_yaml_that_names_a_missing_version_is_refused(tmp_path: Path) -> None:
    configured(tmp_path, "versions: [3]")
    assert refusal(tmp_path) == "versions names 3, and there are 1, 2, 10"


def test_a_version_with_a_zero_before_it_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders(tmp_path, "m/05")
    assert refusal(tmp_path).endswith("a folder named 1, 2, ... was expected, not '05'")
    folders(tmp_path, "m/4", "m/assets")
    assert list(read_source(tmp_path, "m").versions) == [4]
    (record,) = caplog.records
    assert vars(record)["passed_over"] == "05"


def test_a_version_may_be_an_ort_file_and_onnx_comes_first(tmp_path: Path) -> None:
    folders(tmp_path, "m/1")
    (tmp_path / "m/1/model.ort").touch()
    assert read_source(tmp_path, "m").versions == {1: tmp_path / "m/1/model.ort"}
    (tmp_path / "m/1/model.onnx").touch()
    assert read_source(tmp_path, "m").versions == {1: tmp_path / "m/1/model.onnx"}


@pytest.mark.parametrize("name", ["onnxruntime-extensions", "onnxruntime_extensions", "lib/ops.so"])
def test_custom_operators_are_packages_and_files_of_the_folder(name: str, tmp_path: Path) -> None:
    source = read_source(configured(tmp_path, f"custom_ops: [{name}]"), "m")
    assert list(source.config.custom_ops) == [name]


@pytest.mark.parametrize("name", ["/lib/ops.so", "../ops.so", "a/../../ops.so", "numpy", "ops.dll"])
def test_custom_operators_of_anywhere_else_are_refused(name: str, tmp_path: Path) -> None:
    said = refusal(configured(tmp_path, f"custom_ops: [{name}]"))
    assert f"{name!r} is neither onnxruntime_extensions nor a file such as ops.so" in said


@pytest.mark.parametrize("name", ["lost+found", "__pycache__", "@eaDir", "#recycle"])
def test_folders_that_systems_make_by_themselves_are_no_models(name: str, tmp_path: Path) -> None:
    folders(tmp_path, "m/1", name)
    assert model_names(tmp_path) == ("m",)
    ((message, details),) = warnings_of(tmp_path)
    assert message == "folders that hold no models are passed over"
    assert details == {"passed_over": name}


def test_a_good_repository_is_no_reason_for_a_warning(tmp_path: Path) -> None:
    folders(tmp_path, "m/1")
    (tmp_path / "README.md").touch()
    assert warnings_of(tmp_path) == []


def test_an_empty_repository_is_told_with_what_was_looked_for(tmp_path: Path) -> None:
    ((message, details),) = warnings_of(tmp_path)
    assert message == "no model was found"
    assert details["looked_for"] == f"{tmp_path}/NAME/VERSION/model.onnx"
    assert details["found"] == "nothing"


@pytest.mark.parametrize("file", ["model.onnx", "resnet.onnx"])
def test_a_folder_with_just_a_model_file_is_told_with_what_to_do(file: str, tmp_path: Path) -> None:
    (tmp_path / file).touch()
    ((message, details),) = warnings_of(tmp_path)
    assert message == "no model was found"
    assert details["found"] == file
    assert details["cure"] == f"inferd serve {tmp_path / file} serves it alone"


def test_model_files_beside_models_are_named(tmp_path: Path) -> None:
    folders(tmp_path, "m/1")
    (tmp_path / "stray.onnx").touch()
    ((message, details),) = warnings_of(tmp_path)
    assert message == "model files beside the models' folders are not served"
    assert details["files"] == "stray.onnx"


def test_the_folder_of_a_model_given_as_repository_is_told(tmp_path: Path) -> None:
    folders(tmp_path, "m/1", "m/2")
    ((message, details),) = warnings_of(tmp_path / "m")
    assert message == "the repository looks like the folder of a single model"
    assert details["cure"] == f"give the folder around it: {tmp_path}"


def test_a_model_file_beside_the_versions_is_told_with_what_to_do(tmp_path: Path) -> None:
    folders(tmp_path, "m")
    (tmp_path / "m" / "model.onnx").touch()
    file = tmp_path / "m" / "model.onnx"
    assert refusal(tmp_path).endswith(
        f"; move model.onnx into one, or serve it alone: inferd serve {file}"
    )


@pytest.mark.parametrize(
    ("place", "name", "version"),
    [
        ("resnet.onnx", "resnet", 1),
        ("model.onnx", "model", 1),
        ("digits/3/model.onnx", "digits", 3),
        ("digits/3/other.onnx", "other", 1),
    ],
)
def test_a_single_file_is_a_repository_of_one_model(
    place: str, name: str, version: int, tmp_path: Path
) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    assert model_names(file) == (name,)
    assert read_source(file, name).versions == {version: file}
    assert name_of(file, file) == name
    assert holds(file, name, version)
    assert warnings_of(file) == []
