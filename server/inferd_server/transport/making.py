"""Chooses a transport for this host, and makes it."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

from inferd_server.transport.aio import AioTransport
from inferd_server.transport.call import Transport
from inferd_server.transport.choice import AIO, Choice, choose
from inferd_server.transport.completion_queue import CompletionQueueTransport, core
from inferd_server.transport.completion_queue.server import NoTurns, Turns
from inferd_server.transport.options import TransportOptions
from inferd_server.transport.selftest import selftest

PROBE_BYTES = 1 << 16
"""More than the largest question for a health."""


def decide(asked: str, options: TransportOptions) -> Choice:
    """Choose, with the self-test where it matters; `asked` is the setting `transport`."""
    return choose(
        asked,
        version("grpcio"),
        core.TESTED,
        core.missing(),
        lambda: selftest(CompletionQueueTransport(private(options))),
    )


def make(
    name: str,
    options: TransportOptions,
    turns: Turns = NoTurns(),  # noqa: B008 it has no state
) -> Transport:
    """Make the transport of that name; only the completion queue takes turns."""
    return AioTransport(options) if name == AIO else CompletionQueueTransport(options, turns)


def for_probes(options: TransportOptions) -> TransportOptions:
    """Return the options of a plaintext port where the health of the server is asked for."""
    return replace(
        private(options),
        max_message_bytes=PROBE_BYTES,
        reuse_port=options.reuse_port,
        port_setting="probe_port",
    )


def private(options: TransportOptions) -> TransportOptions:
    """Return the options of a transport that only this process calls, on a port of its own.

    Limits are the usual ones: how large a caller's messages may be says nothing about gRPC.
    """
    usual = TransportOptions()
    return replace(
        options,
        max_message_bytes=usual.max_message_bytes,
        max_in_flight_bytes=usual.max_in_flight_bytes,
        max_unsent_bytes=usual.max_unsent_bytes,
        accept_compressed=usual.accept_compressed,
        max_compression_ratio=usual.max_compression_ratio,
        max_metadata_bytes=usual.max_metadata_bytes,
        credentials=None,
        reuse_port=False,
    )
