"""Settings from flags, environment, file and defaults, and what is said of wrong ones."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from inferd_server.errors import SettingsError
from inferd_server.settings.model import Settings, shipped_models
from inferd_server.settings.sources import add_flags, fields, load_settings

# For every setting, a text and what it means; none is the default.
A, B = "AExecutionProvider", "BExecutionProvider"
EXAMPLES: Mapping[str, tuple[str, object]] = {
    "host": ("::1", "::1"),
    "grpc_port": ("1", 1),
    "metrics_host": ("127.0.0.9", "127.0.0.9"),
    "load_reports": ("true", True),
    "metrics_page": ("numbers", "numbers"),
    "metrics_max_connections": ("7", 7),
    "metrics_port": ("2", 2),
    "transport": ("aio", "aio"),
    "max_message_bytes": ("4096", 4096),
    "max_stream_messages": ("3", 3),
    "max_in_flight_bytes": ("2048", 2048),
    "max_unsent_bytes": ("4096", 4096),
    "accept_compressed": ("false", False),
    "max_compression_ratio": ("7", 7),
    "max_connections": ("9", 9),
    "max_metadata_bytes": ("8192", 8192),
    "max_concurrent_streams": ("10", 10),
    "handshake_timeout_s": ("10.5", 10.5),
    "tls_certificate": ("/tls/tls.crt", "/tls/tls.crt"),
    "tls_private_key": ("/tls/tls.key", "/tls/tls.key"),
    "tls_client_ca": ("/tls/ca.crt", "/tls/ca.crt"),
    "identities_file": ("/identities.yaml", "/identities.yaml"),
    "anonymous_permissions": ("read, infer", ("read", "infer")),
    "probe_port": ("8003", 8003),
    "keepalive_time_s": ("11", 11.0),
    "keepalive_timeout_s": ("12", 12.0),
    "min_ping_interval_s": ("13", 13.0),
    "max_connection_age_s": ("14", 14.0),
    "max_connection_age_grace_s": ("15", 15.0),
    "model_repository": ("/models", Path("/models")),
    "model_store": ("s3://bucket/models", "s3://bucket/models"),
    "store_versions": ("latest:2, @staging", ("latest:2", "@staging")),
    "store_poll_s": ("0.25", 0.25),
    "store_keep_warm_s": ("60.5", 60.5),
    "store_cache": ("/cache", "/cache"),
    "store_backups": ("/backups, s3://b/c", ("/backups", "s3://b/c")),
    "model_control": ("off", "off"),
    "strict_readiness": ("false", False),
    "ready_without_models": ("true", True),
    "concurrent_loads": ("5", 5),
    "link_folders": ("/hub,/more", (Path("/hub"), Path("/more"))),
    "model_keys": ("env:A,file:/k", ("env:A", "file:/k")),
    "model_signers": ("/a.pem,/b.pem", (Path("/a.pem"), Path("/b.pem"))),
    "require_models": ("sealed", "sealed"),
    "max_batch_size": ("4", 4),
    "max_queue_delay_ms": ("5.5", 5.5),
    "max_queue_rows": ("6", 6),
    "max_queue_bytes": ("8192", 8192),
    "max_queue_wait_ms": ("250.5", 250.5),
    "verdict_store": ("/var/verdicts", "/var/verdicts"),
    "processes": ("inline", "inline"),
    "concurrent_runs": ("1", 1),
    "engine_threads": ("7", 7),
    "engine_providers": (
        "CUDAExecutionProvider,CPUExecutionProvider",
        ("CUDAExecutionProvider", "CPUExecutionProvider"),
    ),
    "plan_store": ("/plans", "/plans"),
    "cores": ("3", 3),
    "gpus": ("0,GPU-5ab1", ("0", "GPU-5ab1")),
    "gpu_wait": ("block", "block"),
    "cpu_fallback": ("false", False),
    "fronts": ("3", 3),
    "sample_share": ("0.25", 0.25),
    "sample_max_bytes": ("65536", 65536),
    "record_to": ("s3://bucket/seen", "s3://bucket/seen"),
    "record_format": ("npz", "npz"),
    "record_part_bytes": ("4096", 4096),
    "record_part_s": ("1.5", 1.5),
    "record_max_bytes": ("8192", 8192),
    "max_requests": ("16", 16),
    "input_bytes": ("65536", 65536),
    "answer_bytes": ("65537", 65537),
    "cache_bytes": ("17", 17),
    "cache_max_waiting": ("18", 18),
    "cache_redis_url": ("rediss://cache:6380/1", "rediss://cache:6380/1"),
    "cache_redis_password_file": ("/run/secret", "/run/secret"),
    "cache_redis_timeout_ms": ("19", 19.0),
    "alert_urls_file": ("/run/alerts", "/run/alerts"),
    "alert_interval_s": ("5", 5.0),
    "alert_pause_s": ("1", 1.0),
    "alert_patience_s": ("30", 30.0),
    "alert_accuracy_below": ("0.9", 0.9),
    "alert_errors_above": ("0.1", 0.1),
    "alert_p99_above_s": ("0.5", 0.5),
    "alert_restarts_above": ("5", 5.0),
    "alert_queue_above": ("50", 50.0),
    "feedback_keys": ("env:A,file:/k", ("env:A", "file:/k")),
    "feedback_max_age_s": ("3600", 3600.0),
    "feedback_window_s": ("7200", 7200.0),
    "feedback_window_labels": ("500", 500),
    "feedback_labels_per_second": ("0", 0.0),
    "traces_to": ("http://127.0.0.1:4318", "http://127.0.0.1:4318"),
    "trace_share": ("0.5", 0.5),
    "trace_service": ("digits", "digits"),
    "trace_pause_s": ("2.5", 2.5),
    "trace_headers_file": ("/run/headers", "/run/headers"),
    "drift_cpu_share": ("0.25", 0.25),
    "drift_learn_rows": ("2000", 2000),
    "drift_window_rows": ("250", 250),
    "drift_window_s": ("60.5", 60.5),
    "drift_least_rows": ("50", 50),
    "drift_level": ("0.05", 0.05),
    "replicas": ("3", 3),
    "retry_wait_s": ("3.5", 3.5),
    "quarantine_s": ("60", 60.0),
    "canary_interval_s": ("4", 4.0),
    "hang_timeout_s": ("50", 50.0),
    "repair_timeout_s": ("70", 70.0),
    "drain_delay_s": ("8.5", 8.5),
    "drain_timeout_s": ("9", 9.0),
    "log_level": ("debug", "debug"),
    "log_format": ("json", "json"),
}
NAMES = sorted(fields())


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    add_flags(made)
    return made


def flags(*arguments: str) -> dict[str, Any]:
    return vars(parser().parse_args(arguments))


def value(settings: Settings, name: str) -> object:
    return getattr(getattr(settings, fields()[name][0]), name)


def from_file(folder: Path, text: str, name: str = "inferd.yaml") -> Settings:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return load_settings({"config": str(path)}, {})


def refusal(flags: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(flags, environment)
    return str(caught.value)


def test_nothing_given_is_the_defaults() -> None:
    settings = load_settings(flags(), {})
    assert settings == Settings()
    assert settings.repository.model_repository == shipped_models()
    assert shipped_models().is_dir()


def test_every_setting_has_an_example_that_is_not_its_default() -> None:
    assert sorted(EXAMPLES) == NAMES
    assert [name for name in NAMES if EXAMPLES[name][1] == value(Settings(), name)] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_has_a_flag(name: str) -> None:
    text, expected = EXAMPLES[name]
    settings = load_settings(flags("--" + name.replace("_", "-"), text), {})
    assert value(settings, name) == expected


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_has_an_environment_variable(name: str) -> None:
    text, expected = EXAMPLES[name]
    assert value(load_settings({}, {f"INFERD_{name.upper()}": text}), name) == expected


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_has_a_name_in_yaml(name: str, tmp_path: Path) -> None:
    text, expected = EXAMPLES[name]
    assert value(from_file(tmp_path, f"{name}: {text}"), name) == expected


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_has_a_name_in_toml(name: str, tmp_path: Path) -> None:
    text, expected = EXAMPLES[name]
    plain = isinstance(expected, int | float)
    settings = from_file(tmp_path, f"{name} = {text if plain else repr(text)}", "inferd.toml")
    assert value(settings, name) == expected


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    path = tmp_path / "inferd.yaml"
    path.write_text("{grpc_port: 1, metrics_port: 1, engine_threads: 1}")
    environment = {"INFERD_GRPC_PORT": "2", "INFERD_METRICS_PORT": "2"}
    settings = load_settings(flags("--config", str(path), "--grpc-port", "3"), environment)
    assert settings.listen.grpc_port == 3
    assert settings.listen.metrics_port == 2
    assert settings.engine.engine_threads == 1
    assert settings.batching.max_batch_size == 32


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    named, ignored = tmp_path / "a.yaml", tmp_path / "b.yaml"
    named.write_text("grpc_port: 1")
    ignored.write_text("grpc_port: 2")
    environment = {"INFERD_CONFIG": str(named)}
    assert load_settings(flags(), environment).listen.grpc_port == 1
    assert load_settings(flags("--config", str(ignored)), environment).listen.grpc_port == 2


def test_a_wrong_value_is_refused_though_a_stronger_source_overrides_it() -> None:
    message = refusal(flags("--grpc-port", "1"), {"INFERD_GRPC_PORT": "many"})
    assert message.startswith("the environment: grpc_port: ")


@pytest.mark.parametrize("text", ["true", "false", "yes", "no", "1", "0"])
def test_a_yes_or_no_is_read_from_a_flag(text: str) -> None:
    settings = load_settings(flags("--strict-readiness", text), {})
    assert settings.repository.strict_readiness == (text in {"true", "yes", "1"})


@pytest.mark.parametrize("text", [f"{A},{B}", f" {A} , {B} ,", f",{A},,{B}"])
def test_commas_part_a_list_in_flags_and_environment(text: str) -> None:
    by_flag = load_settings({"engine_providers": text}, {})
    by_environment = load_settings({}, {"INFERD_ENGINE_PROVIDERS": text})
    assert by_flag.engine.engine_providers == (A, B)
    assert by_environment.engine.engine_providers == (A, B)


def test_an_empty_list_can_be_given() -> None:
    assert load_settings({"engine_providers": ""}, {}).engine.engine_providers == ()


def test_a_file_may_hold_a_list(tmp_path: Path) -> None:
    settings = from_file(tmp_path, f"engine_providers: [{A}, {B}]")
    assert settings.engine.engine_providers == (A, B)
    settings = from_file(tmp_path, f"engine_providers = ['{A}', '{B}']", "inferd.toml")
    assert settings.engine.engine_providers == (A, B)


def test_the_words_on_and_off_of_yaml_are_taken_for_a_switch(tmp_path: Path) -> None:
    assert from_file(tmp_path, "model_control: on").repository.model_control == "on"
    assert from_file(tmp_path, "model_control: off").repository.model_control == "off"


def test_help_lists_every_setting_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    text = parser().format_help()
    missing = [
        name
        for name, (_, info) in fields().items()
        if f"--{name.replace('_', '-')} " not in text or str(info.description) not in text
    ]
    assert missing == []
    assert "port of the gRPC services; 0 takes a free one (default: 8001)" in text
    assert "(default: none)" in text
    assert "--strict-readiness true|false" in text
    assert "--transport auto|aio|completion_queue" in text


@pytest.mark.parametrize(
    ("flags", "environment", "folder"),
    [
        ({}, {"HOME": "/home/a"}, "/home/a/.cache/inferd/rows"),
        ({}, {"HOME": "/home/a", "XDG_CACHE_HOME": "/cache"}, "/cache/inferd/rows"),
        ({"plan_store": "/plans"}, {"HOME": "/home/a"}, "/plans/rows"),
        ({"plan_store": "/plans", "verdict_store": "/kept"}, {}, "/kept"),
        ({}, {}, None),
        ({"verdict_store": ""}, {"HOME": "/home/a"}, None),
    ],
)
def test_verdicts_are_kept_in_a_cache_unless_another_folder_is_named(
    flags: dict[str, str], environment: dict[str, str], folder: str | None
) -> None:
    found = load_settings(flags, {}).verdict_folder(environment)
    assert found == (None if folder is None else Path(folder))
