"""What gRPC does by itself when one of several servers goes: call another, or call again."""

from __future__ import annotations

import json

from inferd_client import connection

SERVICE = "inference.GRPCInferenceService"
# Answers that are the same the second time. Health is not among them: it is asked to be known
# as it is now; nor are loading and unloading.
REPEATABLE = (
    "ModelInfer",
    "ModelMetadata",
    "ModelConfig",
    "ModelStatistics",
    "ServerMetadata",
    "RepositoryIndex",
)
# The pauses come to 1.5 s, give or take a fifth; gRPC makes at most five attempts.
# CANCELLED, when it was not the caller who did it: what a gRPC server says to calls that arrive
# in the moment in which it stops.
RETRY_POLICY = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
}
# A failure costs a token and an answer brings a tenth: servers that fail all are not flooded.
RETRY_THROTTLING = {"maxTokens": 100, "tokenRatio": 0.1}
RETRY_MARGIN = 1 << 17
# Between two tries to connect, the first of which comes soon because servers restart within
# seconds; the last, because one that was away for an hour should be found when it is back.
FIRST_BACKOFF_MS, LONGEST_BACKOFF_MS = 100, 5000
# Between two looks for the addresses of a name, which happen when a connection ends. By default it
# is 30 s, in which a new server gets nothing.
BETWEEN_RESOLUTIONS_MS = 2000


def service_config(*, repeat: bool, check_health: bool) -> str:
    """Return gRPC's service config as JSON.

    Args:
        repeat: make calls again that nobody could answer.
        check_health: leave out servers that are not ready.

    Source: grpc/doc/service_config.md, gRFC A6 (retries) and A17 (health checks of clients).
    """
    config: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if repeat:
        names = [{"service": SERVICE, "method": method} for method in REPEATABLE]
        config["methodConfig"] = [{"name": names, "retryPolicy": RETRY_POLICY}]
        config["retryThrottling"] = RETRY_THROTTLING
    if check_health:
        config["healthCheckConfig"] = {"serviceName": ""}
    return json.dumps(config)


def pair(
    max_message_bytes: int, *, retries: bool, check_health: bool, direct: bool
) -> list[list[tuple[str, int | str]]]:
    """Return the arguments of a client's two channels.

    The second, which connects when it is first used, is for calls that must not be repeated.
    """
    return [
        options(max_message_bytes, repeat=repeat, check_health=check_health, direct=direct)
        for repeat in (retries, False)
    ]


def options(
    max_message_bytes: int, *, repeat: bool, check_health: bool, direct: bool
) -> list[tuple[str, int | str]]:
    """Return a client's channel arguments; messages of up to so many bytes are repeated.

    With `direct`, what the environment says of proxies is passed over.
    """
    return [
        *connection.options(max_message_bytes, direct=direct),
        ("grpc.service_config", service_config(repeat=repeat, check_health=check_health)),
        # Requests larger than this would be sent once; metadata and frames count as well.
        ("grpc.per_rpc_retry_buffer_size", min(max_message_bytes + RETRY_MARGIN, 2**31 - 1)),
        ("grpc.initial_reconnect_backoff_ms", FIRST_BACKOFF_MS),
        ("grpc.max_reconnect_backoff_ms", LONGEST_BACKOFF_MS),
        ("grpc.dns_min_time_between_resolutions_ms", BETWEEN_RESOLUTIONS_MS),
    ]
