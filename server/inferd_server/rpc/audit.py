"""A line in the log for each call that changes the server, or reaches into its host."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from inferd_server.errors import InferdError
from inferd_server.inference.wire import UNREADABLE
from inferd_server.security.counted import Counted
from inferd_server.transport.call import Call, Caller, UnaryHandler
from inferd_server.transport.status import code_name

log = logging.getLogger(__name__)
TARGET_LETTERS = 200
"""Of what a caller wrote: a line of the log is for people."""


def audited(
    method: MethodDescriptor, handler: UnaryHandler, name: Callable[[Caller], str]
) -> UnaryHandler:
    """Return a handler that logs who called, what for, and what came of it.

    Args:
        method: of the handler.
        handler: to be called.
        name: returns the name of a caller's identity; empty for none.
    """

    def handle(call: Call) -> None:
        who = {"identity": name(call), "peer": call.peer}
        what = {"method": method.name, "target": target_of(method, call.request)}
        handler(Counted(call, partial(_tell, {**who, **what})))

    return handle


def target_of(method: MethodDescriptor, data: bytes) -> str:
    """Return the model, region or settings that a message is about; empty for none, or all."""
    try:
        request: Message = GetMessageClass(method.input_type).FromString(data)
    except UNREADABLE:
        return ""
    names = [getattr(request, "model_name", ""), getattr(request, "name", "")]
    settings = sorted(getattr(request, "settings", ()))
    return ", ".join(filter(None, (*names, *settings)))[:TARGET_LETTERS]


def _tell(call: dict[str, str], error: InferdError | None) -> None:
    log.info("admin call", extra={**call, "outcome": "OK" if error is None else code_name(error)})
