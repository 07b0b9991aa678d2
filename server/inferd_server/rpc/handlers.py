"""Turns functions of messages into handlers of calls."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TypeAlias, TypeVar

from google.protobuf.message import Message

from inferd_server.errors import EngineFailure, InferdError, InvalidInput
from inferd_server.inference.wire import UNCOUNTED_BYTES, UNREADABLE, check_fields, known_fields
from inferd_server.transport.call import Call, UnaryHandler

log = logging.getLogger(__name__)
Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
Elsewhere: TypeAlias = Callable[[Callable[[], None]], None]
"""Runs a function later, on another thread."""


def unary(
    request_class: type[Q], method: Callable[[Q], A], elsewhere: Elsewhere | None = None
) -> UnaryHandler:
    """Return a handler that parses, calls `method` and serialises its answer.

    Args:
        request_class: of the messages.
        method: may raise any InferdError.
        elsewhere: runs methods that block, off the transport's thread.
    """

    def answer(call: Call) -> None:
        try:
            response = method(parse_message(request_class, call.request)).SerializeToString()
        except InferdError as error:
            call.fail(error)
        except Exception:
            log.exception("a method failed", extra={"method": request_class.__name__})
            call.fail(EngineFailure())
        else:
            call.reply((response,))

    if elsewhere is None:
        return answer
    return lambda call: elsewhere(partial(answer, call))


def parse_message(request_class: type[Q], data: bytes) -> Q:
    """Parse a request.

    Raises:
        InvalidInput: the bytes are not such a message, or have more fields than one needs.
    """
    if len(data) > UNCOUNTED_BYTES:
        check_fields(data, known_fields(request_class))
    try:
        return request_class.FromString(data)
    except UNREADABLE as error:
        raise InvalidInput(f"the message is not a {request_class.__name__}: {error}") from error
