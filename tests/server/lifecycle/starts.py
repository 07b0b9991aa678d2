"""Settings of servers and models, drawn at random from what is valid."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests import models

# Of every setting what is no default: usual values, and the ends of what may be given.
SETTINGS: Mapping[str, Sequence[object]] = {
    "host": ("localhost", "0.0.0.0"),
    "metrics_host": ("127.0.0.1",),
    "load_reports": ("true",),
    "metrics_max_connections": (1, 4096),
    "metrics_page": ("all", "numbers", "off"),
    "transport": ("aio", "completion_queue"),
    "max_message_bytes": (4096, 2**31 - 1),
    "max_stream_messages": (1, 2**31 - 1),
    "max_in_flight_bytes": (65536, 2**50),
    "max_unsent_bytes": (65536, 2**50),
    "accept_compressed": ("false",),
    "max_compression_ratio": (0, 1),
    "max_metadata_bytes": (2048, 2**31 - 1),
    "max_concurrent_streams": (0, 1, 2**31 - 1),
    "max_connections": (2, 2**31 - 2),
    "handshake_timeout_s": (0, 3, 86_400),
    "keepalive_time_s": (0, 1, 86_400),
    "keepalive_timeout_s": (1, 86_400),
    "min_ping_interval_s": (0, 0.001, 86_400),
    "max_connection_age_s": (0, 3600),
    "max_connection_age_grace_s": (0.001, 3600),
    "anonymous_permissions": ("infer", "infer,read", "infer,read,admin"),
    "probe_port": (0,),
    "model_control": ("on", "off"),
    "strict_readiness": ("false",),
    "ready_without_models": ("true",),
    "concurrent_loads": (1, 64),
    "max_batch_size": (1, 2, 2**20),
    "max_queue_delay_ms": (0.001, 5, 20),
    "max_queue_rows": (1, 64, 2**31 - 1),
    "max_queue_bytes": (65536, 2**50),
    "max_queue_wait_ms": (10_000, 60_000),
    "processes": ("inline", "threads", "split", "replicas"),
    "replicas": (1, 2),
    "cores": (1, 2, 3),
    "engine_threads": (1, 2),
    "gpus": ("all",),
    "gpu_wait": ("spin", "block"),
    "concurrent_runs": (1, 2, 1024),
    "engine_providers": ("CPUExecutionProvider", "CUDAExecutionProvider,CPUExecutionProvider"),
    "cpu_fallback": ("false",),
    "fronts": (1, 2),
    "max_requests": (16, 2**16),
    "input_bytes": (2**18, 2**30),
    "answer_bytes": (2**16, 2**30),
    "cache_bytes": (0, 1000, 2**40),
    "cache_max_waiting": (0, 2**20),
    "cache_redis_url": ("redis://127.0.0.1:1", "redis://127.0.0.1:1/3?socket_timeout=1"),
    "cache_redis_timeout_ms": (1, 10_000),
    "alert_interval_s": (0.1, 86_400),
    "alert_pause_s": (0, 86_400),
    "alert_patience_s": (0, 86_400),
    "alert_accuracy_below": (0, 1),
    "alert_errors_above": (0, 1),
    "alert_p99_above_s": (0, 86_400),
    "alert_restarts_above": (0, 1000),
    "alert_queue_above": (0, 1e6),
    "feedback_max_age_s": (1, 31_536_000),
    "feedback_window_s": (1, 31_536_000),
    "feedback_window_labels": (1, 2**31 - 1),
    "feedback_labels_per_second": (0, 0.5, 1e9),
    "sample_share": (0, 0.01, 1),
    "sample_max_bytes": (2**20,),
    "record_format": ("auto", "npz"),
    "record_part_bytes": (2**20,),
    "record_part_s": (1, 86_400),
    "record_max_bytes": (2**30,),
    "traces_to": ("http://127.0.0.1:9",),
    "trace_share": (0, 1),
    "trace_service": ("digits in Berlin",),
    "trace_pause_s": (0.5, 60),
    "drift_cpu_share": (0, 1),
    "drift_learn_rows": (100, 100_000),
    "drift_window_rows": (1, 2**31 - 1),
    "drift_window_s": (1, 86_400),
    "drift_least_rows": (1, 2**31 - 1),
    "drift_level": (0.5,),
    "retry_wait_s": (0, 86_400),
    "quarantine_s": (0, 86_400),
    "canary_interval_s": (0, 1, 86_400),
    "hang_timeout_s": (0, 30, 86_400),
    "repair_timeout_s": (0, 60, 86_400),
    "drain_delay_s": (0.001, 0.2),
    "drain_timeout_s": (0, 0.001, 86_400),
    "log_level": ("debug",),
}
# Files and folders, what the test itself gives, and what would hide the lines that it waits for.
LEFT_OUT = {
    *("tls_certificate", "tls_private_key", "tls_client_ca", "identities_file"),
    *("model_repository", "link_folders", "plan_store", "verdict_store"),
    *("model_keys", "model_signers", "require_models", "feedback_keys"),
    *("record_to", "store_backups"),
    *("model_store", "store_versions", "store_poll_s", "store_keep_warm_s", "store_cache"),
    *("cache_redis_password_file", "alert_urls_file", "trace_headers_file"),
    *("grpc_port", "metrics_port", "log_format"),
}
MODEL_SETTINGS: Sequence[str] = (
    "max_batch_size: 0",
    "max_batch_size: 4",
    "max_batch_size: 7\npreferred_batch_size: [2, 4]",
    "max_queue_delay_ms: 10",
    "max_queue_rows: 8",
    "max_queue_wait_ms: 30000",
    "priority_levels: 16\npriority_head_start_ms: 0\npriority_queue_rows: {16: 64}",
    "priority_levels: 3\ndefault_priority: 3",
    "queue_policy: {default_timeout_ms: 3600000, timeout_action: delay}",
    "weight: 0.001",
    "instances: 3",
    "warm_up: []",
    "sample_share: 1.0\ndrift: {learn_rows: 100, logits: [OUTPUT0], embedding: OUTPUT0}",
    "warm_up: [1, 2]",
    "labels: {OUTPUT0: [a, b]}",
    "versions: [1]",
    "engine_options: {session.intra_op.allow_spinning: '1'}",
    "response_cache: {}",
    "response_cache: {ttl_s: 1, max_bytes: 10}",
    "feedback: {output: OUTPUT0, threshold: 0.1}",
)
SETTING_SHARE, MODEL_SHARE = 0.2, 0.15


def drawn_flags(random_: random.Random) -> list[str]:
    """Return flags: each setting is given with a chance of a fifth."""
    chosen = [name for name in SETTINGS if random_.random() < SETTING_SHARE]
    pairs = [(name, random_.choice(SETTINGS[name])) for name in chosen]
    return [part for name, value in pairs for part in (f"--{name.replace('_', '-')}", str(value))]


def drawn_yaml(random_: random.Random) -> str:
    """Return a model.yaml: each group of settings is given with a chance, no name twice."""
    lines: dict[str, str] = {}
    for group in MODEL_SETTINGS:
        if random_.random() < MODEL_SHARE:
            lines |= {line.partition(":")[0]: line for line in group.split("\n")}
    if "default_priority" in lines and "priority_queue_rows" in lines:
        del lines["priority_queue_rows"]
    return "\n".join(lines.values())


def drawn_repository(random_: random.Random, folder: Path) -> Path:
    """Lay out a model that adds, one whose width is free and one of two versions."""
    made = {
        "simple": models.add_sub(),
        "free": models.free_dims(),
        "scaled": {1: models.scale(2.0), 2: models.scale(3.0)},
    }
    return models.repository(folder, made, {name: drawn_yaml(random_) for name in made})
