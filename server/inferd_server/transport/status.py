"""The one table from domain errors to gRPC status codes."""

from __future__ import annotations

import grpc

from inferd_server import errors
from inferd_server.errors import InferdError

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
    errors.EngineFailure: grpc.StatusCode.INTERNAL,
}

# Trailing metadata that names the class of the error, finer than its code.
ERROR_KEY = "inferd-error"

SENTENCE_BYTES = 2000


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
    """Return an error's text, cut so that it fits into the header that carries it.

    Clients refuse headers above 8 KiB, and would report that in the place of the error;
    percent-encoding can triple each byte.
    """
    text = str(error).encode(errors="backslashreplace")
    if len(text) <= SENTENCE_BYTES:
        return text.decode()
    return text[:SENTENCE_BYTES].decode(errors="ignore") + " ..."
