"""Everything that can go wrong for a caller, as one tree.

InferdError
├── InvalidInput            shape, dtype, name, size, malformed message
├── NotFound
│   ├── ModelNotFound
│   ├── VersionNotFound
│   ├── RegionNotFound      no such shared memory region
│   ├── SequenceNotFound    the request goes on with a sequence that is not known
│   └── ServiceNotFound     health asked of an unknown service
├── AlreadyExists           a shared memory region of that name
├── Unavailable
│   ├── ModelNotReady
│   ├── HandleRetired       between processes only: it may be admitted anew
│   ├── WorkerLost
│   └── ShuttingDown
├── ResourceExhausted
│   ├── QueueFull
│   ├── WouldBeLate         the answer would come after the deadline
│   ├── TooManySequences
│   └── MemoryBudgetExceeded
├── DeadlinePassed
├── Cancelled
├── Unauthenticated
├── PermissionDenied
├── Unimplemented
├── ModelUntrusted          its files are not what was sealed or signed; reasons SEAL_...
├── EngineFailure           fixed text; the details are in the log only
└── StartupError            never sent: the command ends with it
    ├── SettingsError
    ├── AddressInUse
    └── CredentialsError    a TLS key or certificate that cannot be used
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

NOTHING: Mapping[str, str] = MappingProxyType({})


class InferdError(Exception):
    """Base of all; its text is a sentence for the caller.

    Attributes:
        reason: the same for machines, in capitals, finer than the class where it is given;
            empty: the class says it all.
        facts: what the reason is about, such as the limit that was met, by name.
        retry_after: seconds after which the same request may succeed; None: nobody knows.
    """

    def __init__(
        self,
        text: str = "",
        *,
        reason: str = "",
        facts: Mapping[str, str] = NOTHING,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text)
        self.reason = reason
        # A plain one: errors travel between processes.
        self.facts = dict(facts)
        self.retry_after = retry_after


class InvalidInput(InferdError):
    """The request can never succeed as it is."""


class NotFound(InferdError):
    """Something named in the request does not exist."""


class ModelNotFound(NotFound):
    """No model of that name."""


class VersionNotFound(NotFound):
    """The model has no such version."""


class RegionNotFound(NotFound):
    """No shared memory region was registered under that name."""


class SequenceNotFound(NotFound):
    """The request goes on with a sequence that never started, or is over."""


class ServiceNotFound(NotFound):
    """Health was asked of a service that is not here."""


class AlreadyExists(InferdError):
    """Something of that name is here already."""


class Unavailable(InferdError):
    """Not now; the same request may succeed later or elsewhere."""


class ModelNotReady(Unavailable):
    """The model is known and not serving."""


class HandleRetired(Unavailable):
    """The model version was replaced before the request ran; it may be admitted anew."""


class WorkerLost(Unavailable):
    """The process that ran the request died."""


class ShuttingDown(Unavailable):
    """The server takes no more requests."""


class ResourceExhausted(InferdError):
    """A bound was reached."""


class QueueFull(ResourceExhausted):
    """The model's queue has no room for these rows."""


class WouldBeLate(ResourceExhausted):
    """Too many wait before the request for it to be answered in time."""


class TooManySequences(ResourceExhausted):
    """No more sequences can be open at a time."""


class MemoryBudgetExceeded(ResourceExhausted):
    """The memory set aside for this is used up."""


class DeadlinePassed(InferdError):
    """The caller's deadline passed before the request could run, or was too close for its run."""


TOO_CLOSE = "its run would have ended behind the deadline, or so close before it that others ran"
"""What is said of a request that is dropped when a batch is made."""


class Cancelled(InferdError):
    """The caller went away."""


class Unauthenticated(InferdError):
    """Nobody has vouched for the caller."""


class PermissionDenied(InferdError):
    """The caller may not do this."""


class Unimplemented(InferdError):
    """This server does not do that."""


class ModelUntrusted(InferdError):
    """A model's files are not what was sealed or signed, or not as this server demands."""


class EngineFailure(InferdError):
    """The engine, or the server itself, failed; the caller is told no details."""

    def __init__(
        self,
        text: str = "the server failed on this request; its log has the details",
        *,
        reason: str = "",
        facts: Mapping[str, str] = NOTHING,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text, reason=reason, facts=facts, retry_after=retry_after)


class StartupError(InferdError):
    """The server cannot start."""


class SettingsError(StartupError):
    """A setting, or the settings file, cannot be used."""


class AddressInUse(StartupError):
    """The address to listen on cannot be had."""


class CredentialsError(StartupError):
    """The TLS key or certificates cannot be used."""
