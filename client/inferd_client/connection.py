"""How both clients open a channel, find its methods and read its failures."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from inferd.oip.v2 import inference_pb2_grpc
from inferd.v1 import feedback_pb2_grpc, releases_pb2_grpc, server_pb2_grpc

from inferd_client import errors, security
from inferd_client.errors import Cancelled, DeadlinePassed, InferdError, InvalidInput
from inferd_client.security import Tls, is_local
from inferd_client.tracing import with_trace

# The server's default too.
MAX_MESSAGE_BYTES = 128 * 1024 * 1024
DEFAULT_TIMEOUT = 60.0

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]

# gRPC counts nanoseconds, which end after 292 years; this is 31.
LONGEST_TIMEOUT = 1e9
CLOSED = "the client is closed"
_KEY = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[ -~]*")

# Seconds between two looks at a server that answers and is not ready.
_FIRST_LOOK = 0.05
_LONGEST_WAIT = 1.0


def open_channel(
    address: str, tls: Tls | None, arguments: Sequence[tuple[str, int | str]]
) -> grpc.Channel:
    """Open a blocking channel; `tls` None is plaintext."""
    arguments = [*arguments, *_without_proxy(address)]
    if tls is None:
        return grpc.insecure_channel(address, arguments)
    return grpc.secure_channel(address, tls.credentials(), [*arguments, *tls.options()])


def open_aio_channel(
    address: str, tls: Tls | None, arguments: Sequence[tuple[str, int | str]]
) -> grpc.aio.Channel:
    """Do the same for asyncio."""
    arguments = [*arguments, *_without_proxy(address)]
    if tls is None:
        return grpc.aio.insecure_channel(address, arguments)
    return grpc.aio.secure_channel(address, tls.credentials(), [*arguments, *tls.options()])


def _without_proxy(address: str) -> list[tuple[str, int]]:
    """Return what keeps a proxy of the environment from being asked for this very host."""
    return [("grpc.enable_http_proxy", 0)] if is_local(address) else []


def options(max_message_bytes: int, *, direct: bool = False) -> list[tuple[str, int | str]]:
    """Return the channel arguments for messages of up to so many bytes either way.

    With `direct`, what the environment says of proxies is passed over.
    """
    return [
        *([("grpc.enable_http_proxy", 0)] if direct else []),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
    ]


def methods(channel: grpc.Channel | grpc.aio.Channel) -> Mapping[str, Callable[..., Any]]:
    """Return the callables of all services by method name."""
    inference = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
    server = server_pb2_grpc.ServerServiceStub(channel)
    releases = releases_pb2_grpc.ReleaseServiceStub(channel)
    feedback = feedback_pb2_grpc.FeedbackServiceStub(channel)
    return {**vars(inference), **vars(server), **vars(releases), **vars(feedback)}


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What every call of a client has in common; `timeout` is in seconds."""

    timeout: float
    metadata: Metadata
    wait_for_ready: bool

    def __post_init__(self) -> None:
        """Refuse what no call could use."""
        require_timeout(self.timeout)
        require_metadata(self.metadata)

    def patience(self, timeout: float | None) -> float:
        """Return the seconds that a call may take.

        Raises:
            InvalidInput: the timeout is no time.
        """
        return self.timeout if timeout is None else require_timeout(timeout)

    def arguments(self, timeout: float | None, metadata: Metadata) -> dict[str, Any]:
        """Return gRPC's keyword arguments of one call; an infinite timeout is none.

        Raises:
            InvalidInput: the timeout is no time, or the metadata cannot be sent.
        """
        chosen = self.patience(timeout)
        require_metadata(metadata)
        return {
            "timeout": None if math.isinf(chosen) else chosen,
            "metadata": with_trace((*self.metadata, *metadata)),
            "wait_for_ready": self.wait_for_ready,
        }


def require_timeout(timeout: float) -> float:
    """Return a timeout that gRPC can keep.

    Raises:
        InvalidInput: it is not a number, or above what gRPC counts.
    """
    if math.isnan(timeout) or (timeout > LONGEST_TIMEOUT and not math.isinf(timeout)):
        raise InvalidInput(
            f"a timeout of {timeout} s is refused: it is at most {LONGEST_TIMEOUT:g}, or math.inf"
        )
    return timeout


def require_metadata(metadata: Metadata) -> None:
    """Refuse metadata that gRPC cannot send.

    Raises:
        InvalidInput: says which key, and what keys and values are.
    """
    for key, value in metadata:
        if not _KEY.fullmatch(key) or key.startswith("grpc-"):
            raise InvalidInput(
                f"metadata key {key!r} is refused: keys are of a-z, 0-9 and _ - . and do not "
                "begin with grpc-"
            )
        binary = key.endswith("-bin")
        if binary != isinstance(value, bytes) or not (binary or _VALUE.fullmatch(str(value))):
            wanted = "bytes" if binary else "printable ASCII"
            raise InvalidInput(f"the value of metadata {key!r} is refused: it must be {wanted}")


def require_usable(*, closed: bool, max_in_flight: int = 1) -> None:
    """Refuse what the caller's program got wrong.

    Raises:
        Cancelled: the client is closed.
        ValueError: nothing may be in flight.
    """
    if closed:
        raise Cancelled(CLOSED)
    if max_in_flight < 1:
        raise ValueError(f"max_in_flight must be at least 1, not {max_in_flight}")


@contextmanager
def translated(address: str) -> Iterator[None]:
    """Turn what gRPC raises into the error tree."""
    try:
        yield
    except grpc.RpcError as error:
        raise error_of(error, address) from error
    except (ValueError, grpc.aio.UsageError) as error:
        # Another thread or task closed the channel between the check and the call.
        if "closed" not in str(error):
            raise
        raise Cancelled(CLOSED) from error


@contextmanager
def translated_await(address: str) -> Iterator[None]:
    """Do the same for asyncio, where closing a channel looks like cancelling the task."""
    try:
        with translated(address):
            yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise Cancelled(CLOSED) from None


def error_of(failure: Any, address: str) -> InferdError:  # grpc types no RpcError's methods
    """Return the error that a failed call stands for."""
    code, text = failure.code().name, failure.details() or ""
    details = {
        key: value for key, value in failure.trailing_metadata() or () if isinstance(value, str)
    }
    name = details.get("inferd-error", "")
    # Without a name it was not the server that spoke: the reader wants to know where to look.
    if code == "UNAVAILABLE" and not name:
        text = f"no answer from {address}: {text}{security.cure(text)}"
    if code == "RESOURCE_EXHAUSTED" and not name and "larger than max" in text:
        text = f"{text}; both sides have a limit, this client's is max_message_bytes"
    return errors.class_of(code, name)(text or code, code=code, details=details)


def looks(timeout: float, clock: Callable[[], float]) -> Iterator[tuple[float, float]]:
    """Yield (timeout of the next look, pause after it) in seconds until time is up.

    Raises:
        DeadlinePassed: so many seconds went by.
    """
    end, pause = clock() + require_timeout(timeout), _FIRST_LOOK
    while (left := end - clock()) > 0:
        yield left, min(pause, left)
        pause = min(2 * pause, _LONGEST_WAIT)
    raise DeadlinePassed(f"the server was not ready within {timeout:g} s")
