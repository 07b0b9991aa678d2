"""Channel arguments are a function of the options, and the options of the settings."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from inferd_server.settings.model import ListenSettings
from inferd_server.transport.credentials import Credentials
from inferd_server.transport.making import COMPLETION_QUEUE, Choice, decide, private
from inferd_server.transport.options import (
    UNLIMITED,
    TransportOptions,
    channel_arguments,
    milliseconds,
    transport_options,
)

DEFAULTS = TransportOptions()


def arguments(**changes: object) -> dict[str, int]:
    return dict(channel_arguments(replace(DEFAULTS, **changes)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "value", "names", "argument"),
    [
        (
            "max_message_bytes",
            5000,
            ("grpc.max_receive_message_length", "grpc.max_send_message_length"),
            5000,
        ),
        (
            "max_metadata_bytes",
            2048,
            ("grpc.max_metadata_size", "grpc.absolute_max_metadata_size"),
            2048,
        ),
        ("max_concurrent_streams", 7, ("grpc.max_concurrent_streams",), 7),
        ("max_connections", 8, ("grpc.max_allowed_incoming_connections",), 8),
        (
            "handshake_timeout",
            2.5,
            ("grpc.server_handshake_timeout_ms", "grpc.http2.settings_timeout"),
            2500,
        ),
        ("keepalive_time", 1.5, ("grpc.keepalive_time_ms",), 1500),
        (
            "keepalive_timeout",
            2.5,
            ("grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms"),
            2500,
        ),
        ("min_ping_interval", 3.5, ("grpc.http2.min_ping_interval_without_data_ms",), 3500),
        ("max_connection_age", 60.0, ("grpc.max_connection_age_ms",), 60_000),
        ("max_connection_age_grace", 9.0, ("grpc.max_connection_age_grace_ms",), 9000),
        ("reuse_port", True, ("grpc.so_reuseport",), 1),
    ],
)
def test_an_option_sets_its_arguments_and_no_others(
    option: str, value: object, names: tuple[str, ...], argument: int
) -> None:
    before, after = arguments(), arguments(**{option: value})
    changed = {name for name in after if after[name] != before[name]}
    assert changed == set(names)
    assert {after[name] for name in names} == {argument}


def test_what_is_zero_is_without_limit() -> None:
    unlimited = arguments(
        max_concurrent_streams=0,
        handshake_timeout=0,
        keepalive_time=0,
        max_connection_age=0,
        max_connection_age_grace=0,
    )
    for name in (
        "grpc.max_concurrent_streams",
        "grpc.server_handshake_timeout_ms",
        "grpc.keepalive_time_ms",
        "grpc.max_connection_age_ms",
        "grpc.max_connection_age_grace_ms",
    ):
        assert unlimited[name] == UNLIMITED


def test_a_port_is_not_shared_unless_asked_for() -> None:
    assert arguments()["grpc.so_reuseport"] == 0


@pytest.mark.parametrize(
    ("asked", "descriptors", "bound"),
    [(0, 1024, 768), (0, 300, 150), (0, 1_000_000, 999_744), (0, -1, 0), (5, 1024, 5), (5, -1, 5)],
)
def test_connections_leave_descriptors_for_all_else(
    asked: int, descriptors: int, bound: int
) -> None:
    listen = ListenSettings(max_connections=asked)
    assert transport_options(listen, descriptors=descriptors).max_connections == bound


def test_no_time_is_cut_to_zero_and_none_is_too_long() -> None:
    assert milliseconds(0.0001) == 1
    assert milliseconds(86_400.0) == 86_400_000
    assert milliseconds(1e12) == UNLIMITED


def test_every_option_comes_from_a_setting_or_the_process() -> None:
    def source() -> Credentials:
        raise AssertionError("asked too early")

    listen = ListenSettings(
        max_message_bytes=2000,
        max_stream_messages=3,
        max_in_flight_bytes=4000,
        max_unsent_bytes=4500,
        accept_compressed=False,
        max_compression_ratio=9,
        max_metadata_bytes=5000,
        max_concurrent_streams=6,
        max_connections=77,
        handshake_timeout_s=7,
        keepalive_time_s=8,
        keepalive_timeout_s=9,
        min_ping_interval_s=10,
        max_connection_age_s=11,
        max_connection_age_grace_s=12,
    )
    options = transport_options(listen, reuse_port=True, credentials=source)
    assert [getattr(options, field.name) for field in fields(options)] == [
        *(2000, 3, 4000, 4500, False, 9, 5000, 6, 77),
        *(7, 8, 9, 10, 11, 12),
        *(True, source, "grpc_port", ()),
    ]


def test_a_transport_for_this_process_alone_shares_no_port_and_needs_no_certificate() -> None:
    def source() -> Credentials:
        raise AssertionError("asked")

    options = replace(DEFAULTS, reuse_port=True, credentials=source, keepalive_time=5.0)
    assert private(options) == replace(DEFAULTS, keepalive_time=5.0)


def test_small_limits_are_no_reason_for_another_transport() -> None:
    small = replace(
        DEFAULTS,
        max_message_bytes=1024,
        max_in_flight_bytes=1024,
        max_unsent_bytes=1024,
        accept_compressed=False,
        max_compression_ratio=1,
        max_metadata_bytes=1024,
        max_concurrent_streams=1,
        max_stream_messages=1,
    )
    assert decide("auto", small) == Choice(COMPLETION_QUEUE)
