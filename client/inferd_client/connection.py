"""How both clients open a channel, find its methods and read its failures."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from inferd.oip.v2 import inference_pb2_grpc
from inferd.v1 import server_pb2_grpc

from inferd_client import errors
from inferd_client.errors import Cancelled, DeadlinePassed, InferdError
from inferd_client.security import Tls, is_local

# The server's default too.
MAX_MESSAGE_BYTES = 128 * 1024 * 1024
DEFAULT_TIMEOUT = 60.0

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]

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
    """Return the callables of both services by method name."""
    inference = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
    server = server_pb2_grpc.ServerServiceStub(channel)
    return {**vars(inference), **vars(server)}


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What every call of a client has in common; `timeout` is in seconds."""

    timeout: float
    metadata: Metadata
    wait_for_ready: bool

    def arguments(self, timeout: float | None, metadata: Metadata) -> dict[str, Any]:
        """Return gRPC's keyword arguments of one call; an infinite timeout is none."""
        chosen = self.timeout if timeout is None else timeout
        return {
            "timeout": None if math.isinf(chosen) else chosen,
            "metadata": (*self.metadata, *metadata),
            "wait_for_ready": self.wait_for_ready,
        }


def require_usable(*, closed: bool, max_in_flight: int = 1) -> None:
    """Refuse what the caller's program got wrong.

    Raises:
        RuntimeError: the client is closed.
        ValueError: nothing may be in flight.
    """
    if closed:
        raise RuntimeError("the client is closed")
    if max_in_flight < 1:
        raise ValueError(f"max_in_flight must be at least 1, not {max_in_flight}")


@contextmanager
def translated(address: str) -> Iterator[None]:
    """Turn what gRPC raises into the error tree."""
    try:
        yield
    except grpc.RpcError as error:
        raise error_of(error, address) from error


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
        raise Cancelled("the client was closed") from None


def error_of(failure: Any, address: str) -> InferdError:  # grpc types no RpcError's methods
    """Return the error that a failed call stands for."""
    code, text = failure.code().name, failure.details() or ""
    details = {
        key: value for key, value in failure.trailing_metadata() or () if isinstance(value, str)
    }
    name = details.get("inferd-error", "")
    # Without a name it was not the server that spoke: the reader wants to know where to look.
    if code == "UNAVAILABLE" and not name:
        text = f"no answer from {address}: {text}"
    return errors.class_of(code, name)(text or code, code=code, details=details)


def looks(timeout: float, clock: Callable[[], float]) -> Iterator[tuple[float, float]]:
    """Yield (timeout of the next look, pause after it) in seconds until time is up.

    Raises:
        DeadlinePassed: so many seconds went by.
    """
    end, pause = clock() + timeout, _FIRST_LOOK
    while (left := end - clock()) > 0:
        yield left, min(pause, left)
        pause = min(2 * pause, _LONGEST_WAIT)
    raise DeadlinePassed(f"the server was not ready within {timeout:g} s")
