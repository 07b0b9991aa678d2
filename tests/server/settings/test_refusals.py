"""Settings that are refused, with a sentence that names source and setting."""

from __future__ import annotations

from pathlib import Path

import pytest
from inferd_server.errors import SettingsError
from inferd_server.settings import model
from inferd_server.settings.model import Settings
from inferd_server.settings.remarks import remarks
from inferd_server.settings.sources import load_settings

WRONG = [
    ("grpc_port", "many"),
    ("grpc_port", "-1"),
    ("grpc_port", "65536"),
    ("grpc_port", ""),
    ("metrics_port", "1.5"),
    ("transport", "threads"),
    ("max_message_bytes", "1"),
    ("max_message_bytes", "2147483648"),
    ("max_stream_messages", "0"),
    ("max_in_flight_bytes", "0"),
    ("max_metadata_bytes", "1023"),
    ("max_unsent_bytes", "1023"),
    ("max_compression_ratio", "-1"),
    ("max_connections", "-1"),
    ("max_connections", str(2**31 - 1)),
    ("max_concurrent_streams", "-1"),
    ("keepalive_time_s", "-1"),
    ("keepalive_timeout_s", "0"),
    ("min_ping_interval_s", "inf"),
    ("max_connection_age_s", "-1"),
    ("max_connection_age_grace_s", "nan"),
    ("handshake_timeout_s", "-1"),
    ("probe_port", "-2"),
    ("model_control", "perhaps"),
    ("strict_readiness", "perhaps"),
    ("max_batch_size", "0"),
    ("max_queue_delay_ms", "nan"),
    ("max_queue_delay_ms", "60001"),
    ("max_queue_rows", "0"),
    ("max_queue_rows", "1e20"),
    ("max_queue_rows", "9223372036854775808"),
    ("max_queue_bytes", "9223372036854775808"),
    ("max_batch_size", "9223372036854775808"),
    ("max_in_flight_bytes", "100000000000000000000"),
    ("max_stream_messages", "9223372036854775808"),
    ("max_queue_bytes", "0"),
    ("max_queue_wait_ms", "-1"),
    ("concurrent_runs", "-1"),
    ("engine_threads", "-1"),
    ("cache_bytes", "-1"),
    ("cache_max_waiting", "-1"),
    ("cache_redis_timeout_ms", "0"),
    ("drift_cpu_share", "1.1"),
    ("drift_learn_rows", "-1"),
    ("drift_window_rows", "0"),
    ("drift_window_s", "0.5"),
    ("drift_least_rows", "0"),
    ("drift_level", "0"),
    ("drift_level", "1"),
    ("drain_delay_s", "-0.1"),
    ("drain_timeout_s", "inf"),
    ("drain_timeout_s", "nan"),
    ("host", "[::1"),
    ("host", "a/b"),
    ("host", " "),
    ("host", "unix:"),
    ("host", "unix:///" + "x" * 107),
    ("model_repository", ""),
    ("max_queue_rows", "2147483648"),
    ("max_queue_rows", "100000000000000000000"),
    ("max_queue_bytes", "9223372036854775808"),
    ("max_batch_size", "1048577"),
    ("engine_threads", "1025"),
    ("canary_interval_s", "0.0001"),
    ("hang_timeout_s", "1e-9"),
    ("log_level", "loud"),
    ("log_format", "xml"),
]


def refusal(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings({"config": str(path)}, {})
    return str(caught.value)


def written(folder: Path, text: str, name: str = "inferd.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("name", "text"), WRONG)
def test_a_wrong_flag_is_named(name: str, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({name: text}, {})
    assert str(caught.value).startswith(f"the command line: {name}: ")
    assert str(caught.value).endswith(f"(it is {text!r})")


@pytest.mark.parametrize(("name", "text"), [pair for pair in WRONG if pair[1]])
def test_a_wrong_variable_is_named(name: str, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({}, {f"INFERD_{name.upper()}": text})
    assert str(caught.value).startswith(f"the environment: {name}: ")


@pytest.mark.parametrize(
    "text",
    [
        "grpc_port: [1]",
        "grpc_port: true",
        "grpc_port:",
        "drain_delay_s: false",
        "max_queue_delay_ms: yes",
        "max_batch_size: 1.5",
        "host: 127",
        "host: true",
        "log_level: off",
        "model_repository: 5",
        "engine_providers: 5",
        "engine_providers: [1]",
        "strict_readiness: 2",
    ],
)
def test_a_value_of_another_type_in_a_file_is_named(text: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    name = text.partition(":")[0]
    assert refusal(path).startswith(f"the settings file {path}: {name}")


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        (
            "everything",
            "anonymous_permissions.0: Input should be 'auto', 'infer', 'read', 'feedback' or "
            "'admin'",
        ),
        ("infer, control", "anonymous_permissions.1: Input should be"),
        ("auto, infer", "anonymous_permissions: Value error, auto stands alone"),
    ],
)
def test_permissions_that_nobody_can_be_given_are_named(text: str, clause: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"anonymous_permissions": text}, {})
    assert clause in str(caught.value)


def test_everything_wrong_in_a_section_is_told_at_once(tmp_path: Path) -> None:
    message = refusal(written(tmp_path, "{grpc_port: x, metrics_port: y}"))
    assert "grpc_port: " in message
    assert "; metrics_port: " in message


@pytest.mark.parametrize(
    ("name", "text"), [("inferd.yaml", "port: 1"), ("inferd.toml", "port = 1")]
)
def test_an_unknown_name_in_a_file_is_told_with_those_that_are_known(
    name: str, text: str, tmp_path: Path
) -> None:
    path = written(tmp_path, text, name)
    message = refusal(path)
    assert message.startswith(f"the settings file {path}: unknown setting 'port'; known are ")
    assert "grpc_port" in message


def test_a_section_is_not_a_name(tmp_path: Path) -> None:
    path = written(tmp_path, "[listen]\ngrpc_port = 1", "inferd.toml")
    assert "unknown setting 'listen'" in refusal(path)


@pytest.mark.parametrize("text", ["abc", "cpu", "cuda", "ExecutionProvider"])
def test_what_can_be_no_provider_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=f"engine_providers: Value error, '{text}' is no prov"):
        load_settings({"engine_providers": text}, {})


@pytest.mark.parametrize(
    ("name", "value"),
    [("host", "a\0b"), ("model_repository", "a\0b"), ("engine_providers", ["\0"])],
)
def test_a_nul_is_refused_with_the_name_of_the_setting(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"{name}: .* NUL character"):
        load_settings({name: value}, {})


@pytest.mark.parametrize("text", ["grpc_port: 1\ngrpc_port: 2", "{host: a, 'host': b}"])
def test_a_key_given_twice_is_refused(text: str, tmp_path: Path) -> None:
    message = refusal(written(tmp_path, text))
    assert " is not YAML: " in message
    assert "is given twice" in message


def test_what_yaml_merges_may_be_overridden(tmp_path: Path) -> None:
    path = written(tmp_path, "<<: {grpc_port: 1}\ngrpc_port: 2")
    assert load_settings({"config": str(path)}, {}).listen.grpc_port == 2


@pytest.mark.parametrize("host", ["[::1]", "::1"])
def test_an_ipv6_address_may_have_its_brackets(host: str) -> None:
    assert load_settings({"host": host}, {}).listen.host == "::1"


@pytest.mark.parametrize("name", ["inferd.TOML", "inferd.Toml"])
def test_the_case_of_a_file_s_name_says_nothing(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, "grpc_port = 5", name)
    assert load_settings({"config": str(path)}, {}).listen.grpc_port == 5


@pytest.mark.parametrize("name", ["HOST", "GRPC_PORT", "MODEL_REPOSITORY", "LOG_LEVEL"])
def test_an_empty_variable_is_no_value(name: str) -> None:
    assert load_settings({}, {f"INFERD_{name}": ""}) == load_settings({}, {})


LINKS = {
    "INFERD_SERVICE_HOST": "10.0.0.1",
    "INFERD_SERVICE_PORT": "8001",
    "INFERD_SERVICE_PORT_GRPC": "8001",
    "INFERD_PORT": "tcp://10.0.0.1:8001",
    "INFERD_PORT_8001_TCP": "tcp://10.0.0.1:8001",
    "INFERD_PORT_8001_TCP_ADDR": "10.0.0.1",
    "INFERD_HEADLESS_SERVICE_HOST": "10.0.0.1",
}


def test_links_of_kubernetes_to_a_service_are_passed_over() -> None:
    assert load_settings({}, LINKS) == load_settings({}, {})
    assert remarks(Settings(), (), LINKS, 0) == []


@pytest.mark.parametrize("name", ["GRPC_PORT", "METRICS_PORT", "PROBE_PORT"])
def test_a_link_that_is_named_like_a_setting_is_passed_over_and_told(name: str) -> None:
    environment = {f"INFERD_{name}": "tcp://10.0.0.1:8001"}
    assert load_settings({}, environment) == load_settings({}, {})
    (said,) = remarks(Settings(), (), environment, 0)
    assert said.startswith(f"the variable INFERD_{name} is passed over: tcp://10.0.0.1:8001 is ")


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("INFERD_GRPC_PROT", "; did you mean INFERD_GRPC_PORT?"),
        ("INFERD_MODEL_REPO", "; did you mean INFERD_MODEL_REPOSITORY?"),
        ("INFERD_XYZZY", ""),
    ],
)
def test_a_variable_that_is_no_setting_is_told(name: str, cure: str) -> None:
    assert remarks(Settings(), (), {name: "1"}, 0) == [f"the variable {name} is no setting{cure}"]


def test_variables_of_other_commands_are_not_told() -> None:
    environment = {"INFERD_URL": "a:1", "INFERD_TOKEN": "b", "INFERD_CONFIG": "c", "HOME": "d"}
    assert remarks(Settings(), (), environment, 0) == []


def test_settings_of_processes_that_there_are_not_are_told() -> None:
    assert remarks(Settings(), ["fronts", "host"], {}, 0) == ["fronts has no effect in one process"]
    assert remarks(Settings(), ["fronts"], {}, 2) == []


def test_gpus_that_no_process_is_going_to_use_are_told() -> None:
    told = ["gpus has no effect without processes: split, and plan_store or engine_providers"]
    assert remarks(load_settings({"gpus": "0"}, {}), ["gpus"], {}, 2) == told
    found = load_settings({"gpus": "0", "plan_store": "/plans"}, {})
    assert remarks(found, ["gpus"], {}, 0) == told
    assert remarks(found, ["gpus"], {}, 2) == []


def test_a_password_of_no_redis_is_told() -> None:
    settings = load_settings({"cache_redis_password_file": "/secret"}, {})
    expected = "cache_redis_password_file has no effect without cache_redis_url"
    assert remarks(settings, (), {}, 0) == [expected]


def test_what_a_command_line_holds_besides_settings_is_passed_over() -> None:
    assert load_settings({"command": "serve"}, {}) == load_settings({}, {})


@pytest.mark.parametrize("name", ["inferd.yaml", "inferd.toml"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    assert refusal(path) == f"{path} cannot be read: No such file or directory"


@pytest.mark.parametrize("name", ["inferd.yaml", "inferd.toml"])
def test_a_folder_is_not_a_settings_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.mkdir()
    assert refusal(path) == f"{path} cannot be read: Is a directory"


@pytest.mark.parametrize(("name", "kind"), [("inferd.yaml", "YAML"), ("inferd.toml", "TOML")])
@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x00\x01\x02", b"a: ["])
def test_a_binary_or_broken_file_is_named(
    name: str, kind: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    message = refusal(path)
    assert message.startswith(f"{path} is not {kind}: ")
    assert "\n" not in message


@pytest.mark.parametrize("text", ["- grpc_port", "grpc_port", "5", "1: 2", "{true: 1}"])
def test_a_file_that_holds_no_names_is_refused(text: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    assert refusal(path).startswith(f"{path} must hold names and values")


def test_deep_nesting_is_a_sentence_too(tmp_path: Path) -> None:
    path = written(tmp_path, "[" * 10_000)
    assert refusal(path).startswith(f"{path} is not YAML: ")


@pytest.mark.parametrize("name", ["inferd.yaml", "inferd.toml"])
def test_an_empty_file_is_the_defaults(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, "# nothing\n", name)
    assert load_settings({"config": str(path)}, {}) == load_settings({}, {})


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://:hunter2@cache", "a password belongs into the file"),
        ("redis://somebody:hunter2@cache:6379/0", "a password belongs into the file"),
        ("redis://cache?password=hunter2", "a password belongs into the file"),
        ("http://hunter2", "redis://, rediss:// or unix:// was expected"),
        ("hunter2", "redis://, rediss:// or unix:// was expected"),
        ("redis://cache:hunter2", "this is no URL"),
        ("redis://cache?nosuch=hunter2", "the options of the URL cannot be used: nosuch"),
        ("redis://cache?socket_timeout=hunter2&db=1", "cannot be used: socket_timeout"),
        ("rediss://cache?ssl_no=hunter2&db=x", "cannot be used: ssl_no, db"),
    ],
)
def test_a_wrong_url_of_redis_is_refused_and_never_shown(url: str, why: str) -> None:
    with pytest.raises(SettingsError, match="cache_redis_url: ") as caught:
        load_settings({"cache_redis_url": url}, {})
    assert why in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_redis_without_its_package_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"install inferd\[redis\]"):
        load_settings({"cache_redis_url": "redis://cache"}, {})
