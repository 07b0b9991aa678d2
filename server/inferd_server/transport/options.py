"""What a transport is told once: limits, keepalive, the ages of connections, TLS.

Both transports are gRPC core underneath, so `channel_arguments` is written once.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from inferd_server.settings.model import ListenSettings
from inferd_server.transport.credentials import Credentials

ChannelArguments: TypeAlias = tuple[tuple[str, int], ...]
RESERVED_DESCRIPTORS = 256
"""Left for models, logs, metrics and other processes where connections may take the rest."""
UNLIMITED = 2**31 - 1
"""What gRPC core takes for no limit, in milliseconds, streams or bytes."""


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """Limits of one transport. Times are in seconds; 0 is no limit, where there may be none."""

    max_message_bytes: int = 128 << 20
    """Largest message received or sent."""
    max_stream_messages: int = 256
    """Messages of one stream that may await their answer."""
    max_in_flight_bytes: int = 1 << 30
    """Bytes of requests that were received and not answered yet, of all calls together."""
    max_unsent_bytes: int = 1 << 29
    """Bytes of answers that their callers have not taken yet, of all calls together."""
    accept_compressed: bool = True
    """False refuses compressed requests."""
    max_compression_ratio: int = 100
    """How many times as large a compressed request above 1 MiB may become; 0 is no limit."""
    max_metadata_bytes: int = 16 << 10
    """Size of a caller's metadata: names, values and 32 for each pair."""
    max_concurrent_streams: int = 0
    """Calls of one connection at a time; a caller's gRPC keeps the others back."""
    max_connections: int = 0
    """Connections at a time; further ones are closed at once."""
    handshake_timeout: float = 10.0
    """Time that a new connection gets for TLS and the settings of HTTP/2."""
    keepalive_time: float = 0.0
    """Silence after which a connection is pinged; 0: never."""
    keepalive_timeout: float = 20.0
    """Time that the answer to a ping may take before the connection is closed."""
    min_ping_interval: float = 10.0
    """Callers that ping more often than this lose their connection."""
    max_connection_age: float = 0.0
    """Age, give or take a tenth, at which a connection takes no new calls."""
    max_connection_age_grace: float = 0.0
    """Time after that in which its calls may end before they are cut off."""
    reuse_port: bool = False
    """Listen beside other servers of this host and user that say the same; the kernel spreads
    connections over them."""
    credentials: Callable[[], Credentials] | None = None
    """Asked at the start and again for each connection, so that certificates can be renewed;
    None serves without TLS."""
    port_setting: str = "grpc_port"
    """Where the port stands in the settings, for errors."""
    more: ChannelArguments = ()
    """Further arguments of gRPC core, for measurements."""


def channel_arguments(options: TransportOptions) -> ChannelArguments:
    """Return gRPC core's arguments of a server.

    Source: include/grpc/impl/channel_arg_names.h in grpc/grpc.
    """
    return (
        ("grpc.max_receive_message_length", options.max_message_bytes),
        ("grpc.max_send_message_length", options.max_message_bytes),
        # It has no bound for what a small message becomes: see compression.py.
        ("grpc.per_message_decompression", 0),
        # Our own bounds decide: core would end calls above its own with CANCELLED.
        ("grpc.server.max_pending_requests", UNLIMITED),
        ("grpc.server.max_pending_requests_hard_limit", UNLIMITED),
        ("grpc.server_max_unrequested_time_in_server", UNLIMITED),
        # Between the two core refuses some calls and takes others; so there is no between.
        ("grpc.max_metadata_size", options.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", options.max_metadata_bytes),
        ("grpc.max_concurrent_streams", options.max_concurrent_streams or UNLIMITED),
        # Or core refuses calls because of others that are over, and not yet deleted.
        ("grpc.http.overload_protection", 0),
        # Core aborts the process where this is UNLIMITED.
        ("grpc.max_allowed_incoming_connections", options.max_connections or UNLIMITED - 1),
        # To their arrival, and then to the acknowledgement of ours.
        ("grpc.server_handshake_timeout_ms", milliseconds(options.handshake_timeout)),
        ("grpc.http2.settings_timeout", milliseconds(options.handshake_timeout)),
        ("grpc.keepalive_time_ms", milliseconds(options.keepalive_time)),
        ("grpc.keepalive_timeout_ms", milliseconds(options.keepalive_timeout)),
        # The keepalive's own timeout alone does not close a connection (grpcio 1.85.1).
        ("grpc.http2.ping_timeout_ms", milliseconds(options.keepalive_timeout)),
        ("grpc.http2.min_ping_interval_without_data_ms", int(options.min_ping_interval * 1e3)),
        # A connection without calls is pinged, and may ping, too.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_connection_age_ms", milliseconds(options.max_connection_age)),
        ("grpc.max_connection_age_grace_ms", milliseconds(options.max_connection_age_grace)),
        # Two servers on one port share its callers: never without a word.
        ("grpc.so_reuseport", int(options.reuse_port)),
        *options.more,
    )


def connection_bound(asked: int, descriptors: int) -> int:
    """Return how many connections there may be at a time; 0 is no limit.

    Each takes a descriptor, and without any left a process can neither read a model nor log.

    Args:
        asked: 0 leaves it to the descriptors.
        descriptors: that the process may have; negative is no limit.
    """
    if asked or descriptors < 0:
        return asked
    return max(descriptors // 2, descriptors - RESERVED_DESCRIPTORS)


def milliseconds(seconds: float) -> int:
    """Return whole milliseconds, at least one; no limit for 0."""
    return min(UNLIMITED, max(1, round(seconds * 1000))) if seconds else UNLIMITED


def transport_options(
    listen: ListenSettings,
    *,
    reuse_port: bool = False,
    credentials: Callable[[], Credentials] | None = None,
    descriptors: int | None = None,
) -> TransportOptions:
    """Return what the settings say, and what only the process itself knows.

    Args:
        listen: the settings.
        reuse_port: listen beside other processes.
        credentials: asked for each connection.
        descriptors: that this process may have; None asks the system.
    """
    if descriptors is None:
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return TransportOptions(
        max_message_bytes=listen.max_message_bytes,
        max_stream_messages=listen.max_stream_messages,
        max_in_flight_bytes=listen.max_in_flight_bytes,
        max_unsent_bytes=listen.max_unsent_bytes,
        accept_compressed=listen.accept_compressed,
        max_compression_ratio=listen.max_compression_ratio,
        max_metadata_bytes=listen.max_metadata_bytes,
        max_concurrent_streams=listen.max_concurrent_streams,
        max_connections=connection_bound(listen.max_connections, descriptors),
        handshake_timeout=listen.handshake_timeout_s,
        keepalive_time=listen.keepalive_time_s,
        keepalive_timeout=listen.keepalive_timeout_s,
        min_ping_interval=listen.min_ping_interval_s,
        max_connection_age=listen.max_connection_age_s,
        max_connection_age_grace=listen.max_connection_age_grace_s,
        reuse_port=reuse_port,
        credentials=credentials,
    )
