"""The transport that serves on this host, with what is to be said about the choice."""

from __future__ import annotations

import logging
import os

from google.protobuf.internal import api_implementation

from inferd_server.effects import heap_problem, listener_problem, probe_heap, protobuf_problem
from inferd_server.errors import StartupError
from inferd_server.transport.choice import Choice
from inferd_server.transport.listener import listener_wakeups
from inferd_server.transport.making import decide, make, private
from inferd_server.transport.options import TransportOptions

log = logging.getLogger(__name__)


def choose_transport(asked: str, options: TransportOptions) -> str:
    """Return the name of the transport to serve, and log what is not as it was wanted."""
    choice = decide(asked, options)
    if choice.reason:
        log.warning("another transport", extra={"serves": choice.name, "reason": choice.reason})
    for problem in without_effect(choice, options):
        log.warning("the environment costs time", extra={"reason": problem})
    return choice.name


def without_effect(choice: Choice, options: TransportOptions) -> list[str]:
    """Return what `environment` asked for in vain, and what else makes this host slow."""
    try:
        wakeups = listener_wakeups(make(choice.name, private(options)))
        listener = listener_problem(os.environ, wakeups)
    except (OSError, StartupError) as error:
        listener = f"whether gRPC handles sockets on threads of its own is unknown: {error}"
    protobuf = protobuf_problem(os.environ, api_implementation.Type())
    problems = listener, heap_problem(os.environ, probe_heap()), protobuf
    return [problem for problem in problems if problem]
