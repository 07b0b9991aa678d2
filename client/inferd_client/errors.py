"""The errors of the client, one tree with the names that the server uses.

InferdError
├── InvalidInput            INVALID_ARGUMENT     what was asked is not what the model takes
│   └── FeedbackRefused     a prediction token does not count; details["reason"] says why
├── NotFound                NOT_FOUND
│   ├── ModelNotFound
│   ├── VersionNotFound
│   └── SequenceNotFound
├── Unavailable             UNAVAILABLE          nobody can answer now; a later try may succeed
│   ├── ModelNotReady
│   ├── WorkerLost
│   └── ShuttingDown
├── ResourceExhausted       RESOURCE_EXHAUSTED
│   ├── QueueFull
│   ├── WouldBeLate
│   ├── TooManySequences
│   └── MemoryBudgetExceeded
├── DeadlinePassed          DEADLINE_EXCEEDED
├── Cancelled               CANCELLED
├── Unauthenticated         UNAUTHENTICATED
├── PermissionDenied        PERMISSION_DENIED
├── Unimplemented           UNIMPLEMENTED
├── ModelUntrusted          FAILED_PRECONDITION  its files are not what was sealed or signed
├── EngineFailure           INTERNAL             the server failed; its log says why
└── InvalidResponse         DATA_LOSS            the answer contradicts itself (found by the client)

A code that is not in the tree becomes a plain InferdError with that code.
"""

from __future__ import annotations

from collections.abc import Mapping


class InferdError(Exception):
    """A call failed.

    Attributes:
        code: name of the gRPC status code, such as "RESOURCE_EXHAUSTED".
        message: what went wrong, in one sentence.
        details: what else the server sent along: trailing metadata of a call, or
            parameters of an answer in a stream.
    """

    code = "UNKNOWN"

    def __init__(
        self, message: str, *, code: str = "", details: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.details = dict(details or {})


class InvalidInput(InferdError):
    """A tensor, name, shape, datatype or parameter is not what the model takes."""

    code = "INVALID_ARGUMENT"


class FeedbackRefused(InvalidInput):
    """A prediction token does not count; `details["reason"]` says why, such as "DOUBLED"."""


class NotFound(InferdError):
    """The server does not have what was named."""

    code = "NOT_FOUND"


class ModelNotFound(NotFound):
    """No model of that name."""


class VersionNotFound(NotFound):
    """The model has no such version."""


class SequenceNotFound(NotFound):
    """The request goes on with a sequence that never started, or is over: begin it anew."""


class Unavailable(InferdError):
    """Nobody can answer now: no connection, or the server says so."""

    code = "UNAVAILABLE"


class ModelNotReady(Unavailable):
    """The model exists and does not serve at the moment."""


class WorkerLost(Unavailable):
    """The process that ran the request died."""


class ShuttingDown(Unavailable):
    """The server accepts no more requests."""


class ResourceExhausted(InferdError):
    """A limit was met: of the queue, of memory, or of a message's size."""

    code = "RESOURCE_EXHAUSTED"


class QueueFull(ResourceExhausted):
    """The model's queue is full."""


class WouldBeLate(ResourceExhausted):
    """Too many wait before the request for it to be answered in time."""


class TooManySequences(ResourceExhausted):
    """No more sequences can be open at a time."""


class MemoryBudgetExceeded(ResourceExhausted):
    """The request or model does not fit the memory that the server may use."""


class DeadlinePassed(InferdError):
    """No answer within the timeout."""

    code = "DEADLINE_EXCEEDED"


class Cancelled(InferdError):
    """The call was given up."""

    code = "CANCELLED"


class Unauthenticated(InferdError):
    """The server does not know the caller."""

    code = "UNAUTHENTICATED"


class PermissionDenied(InferdError):
    """The caller may not do this."""

    code = "PERMISSION_DENIED"


class Unimplemented(InferdError):
    """The server has no such method."""

    code = "UNIMPLEMENTED"


class ModelUntrusted(InferdError):
    """The model's files are not what was sealed or signed, or not as the server demands."""

    code = "FAILED_PRECONDITION"


class EngineFailure(InferdError):
    """The server or its engine failed."""

    code = "INTERNAL"


class InvalidResponse(InferdError):
    """An answer arrived and contradicts itself, so its numbers cannot be trusted."""

    code = "DATA_LOSS"


PARENTS: Mapping[str, type[InferdError]] = {
    parent.code: parent
    for parent in (
        InvalidInput,
        NotFound,
        Unavailable,
        ResourceExhausted,
        DeadlinePassed,
        Cancelled,
        Unauthenticated,
        PermissionDenied,
        Unimplemented,
        ModelUntrusted,
        EngineFailure,
    )
}

NAMES: Mapping[str, type[InferdError]] = {
    named.__name__: named
    for parent in PARENTS.values()
    for named in (parent, *parent.__subclasses__())
}


def class_of(code: str, name: str = "") -> type[InferdError]:
    """Return the class for a status code and, if the server gave one, an error's name.

    A name that is unknown or belongs to another code is ignored.
    """
    named = NAMES.get(name)
    if named is not None and named.code == code:
        return named
    return PARENTS.get(code, InferdError)
