"""The one table from domain errors to gRPC status codes, and how errors travel."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import grpc
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from inferd_server import errors
from inferd_server.errors import InferdError, ShuttingDown
from inferd_server.transport.call import Metadata

CODES: dict[type[InferdError], grpc.StatusCode] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlinePassed: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Cancelled: grpc.StatusCode.CANCELLED,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.Unimplemented: grpc.StatusCode.UNIMPLEMENTED,
    errors.ModelUntrusted: grpc.StatusCode.FAILED_PRECONDITION,
    errors.EngineFailure: grpc.StatusCode.INTERNAL,
}

# Trailing metadata that names the class of the error, finer than its code.
ERROR_KEY = "inferd-error"
# Trailing metadata with google.rpc.Status, which gRPC's own libraries read.
DETAILS_KEY = "grpc-status-details-bin"
# Trailing metadata that gRPC's own retries wait for (gRFC A6).
PUSHBACK_KEY = "grpc-retry-pushback-ms"
DOMAIN = "inferd"

# Clients refuse headers above 8 KiB, and would report that in the place of the error. The
# sentence travels twice: percent-encoded, which can triple each byte, and in base64.
SENTENCE_BYTES = 1500
FACTS_BYTES = 500

WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def status_code(error: InferdError) -> grpc.StatusCode:
    """Return the code of an error's nearest ancestor in the table; INTERNAL if none."""
    for kind in type(error).__mro__:
        if kind in CODES:
            return CODES[kind]
    return grpc.StatusCode.INTERNAL


def code_name(error: InferdError) -> str:
    """Return the name of an error's code, such as "INVALID_ARGUMENT"."""
    return str(status_code(error).name)


def sentence(error: InferdError) -> str:
    """Return an error's text, cut so that it fits into the headers that carry it."""
    text = str(error).encode(errors="backslashreplace")
    if len(text) <= SENTENCE_BYTES:
        return text.decode()
    return text[:SENTENCE_BYTES].decode(errors="ignore") + " ..."


def reason(error: InferdError) -> str:
    """Return what ErrorInfo calls the reason, such as "QUEUE_FULL" for QueueFull."""
    return error.reason or WORD.sub("_", type(error).__name__).upper()


def milliseconds(retry_after: float) -> int:
    """Return seconds to wait as whole milliseconds.

    Rounded up, because a retry that comes too early is refused again.
    """
    return math.ceil(max(0.0, retry_after) * 1000)


def trailers(error: InferdError) -> Metadata:
    """Return the trailing metadata of an error: its class, and all of it for machines.

    Source: google/rpc/status.proto and error_details.proto; the reason's form is AIP-193's.
    """
    facts = error.facts
    if sum(len(name.encode()) + len(value.encode()) for name, value in facts.items()) > FACTS_BYTES:
        facts = {}
    status = Status(code=status_code(error).value[0], message=sentence(error))
    status.details.add().Pack(ErrorInfo(reason=reason(error), domain=DOMAIN, metadata=facts))
    pushback: Metadata = ()
    if error.retry_after is not None:
        wait = milliseconds(error.retry_after)
        retry = RetryInfo()
        retry.retry_delay.FromMilliseconds(wait)
        status.details.add().Pack(retry)
        pushback = ((PUSHBACK_KEY, str(wait)),)
    named = (ERROR_KEY, type(error).__name__)
    return (named, (DETAILS_KEY, status.SerializeToString()), *pushback)


class CallStatus(NamedTuple):
    """The end of a call, in plain values.

    An error that is kept keeps the frames that it was raised through, and so the request.
    """

    code: grpc.StatusCode
    text: str
    trailing: Metadata


def ok_status(trailing: Metadata) -> CallStatus:
    """Return the end of a call that went well."""
    return CallStatus(grpc.StatusCode.OK, "", trailing)


def error_status(error: InferdError) -> CallStatus:
    """Return the end of a call that failed."""
    return CallStatus(status_code(error), sentence(error), trailers(error))


def given_up() -> ShuttingDown:
    """Return the error of a call that a stopping transport waits for no longer."""
    return ShuttingDown("the server stopped before the call was over")
