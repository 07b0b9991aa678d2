"""What other services import to call an inference server.

from inferd_client import Client

with Client("localhost:8001") as client:
    scores = client.infer("digits", image=image)["scores"]
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inferd_client.aio import AsyncClient
    from inferd_client.client import Client
    from inferd_client.connection import DEFAULT_TIMEOUT, MAX_MESSAGE_BYTES
    from inferd_client.errors import InferdError
    from inferd_client.feedback import FeedbackOutcome
    from inferd_client.information import (
        ModelConfig,
        ModelMetadata,
        ModelState,
        ModelStatistics,
        ModelVersionStatus,
        ServerMetadata,
        ServerStatus,
        TensorInfo,
    )
    from inferd_client.ledger import StreamItem
    from inferd_client.requests import Request
    from inferd_client.results import Result
    from inferd_client.security import Tls

__all__ = [
    "DEFAULT_TIMEOUT",
    "MAX_MESSAGE_BYTES",
    "AsyncClient",
    "Client",
    "FeedbackOutcome",
    "InferdError",
    "ModelConfig",
    "ModelMetadata",
    "ModelState",
    "ModelStatistics",
    "ModelVersionStatus",
    "Request",
    "Result",
    "ServerMetadata",
    "ServerStatus",
    "StreamItem",
    "TensorInfo",
    "Tls",
]

HOMES = {
    "aio": ("AsyncClient",),
    "client": ("Client",),
    "connection": ("DEFAULT_TIMEOUT", "MAX_MESSAGE_BYTES"),
    "errors": ("InferdError",),
    "feedback": ("FeedbackOutcome",),
    "information": (
        "ModelConfig", "ModelMetadata", "ModelState", "ModelStatistics", "ModelVersionStatus",
        "ServerMetadata", "ServerStatus", "TensorInfo",
    ),
    "ledger": ("StreamItem",),
    "requests": ("Request",),
    "results": ("Result",),
    "security": ("Tls",),
}  # fmt: skip


def __getattr__(name: str) -> object:
    """Import what is asked for, so that a command that calls no server starts without gRPC."""
    for home, names in HOMES.items():
        if name == home or name in names:
            module = import_module(f"inferd_client.{home}")
            found = globals()[name] = module if name == home else getattr(module, name)
            return found
    raise AttributeError(f"module 'inferd_client' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Tell what may be asked for, imported or not."""
    return sorted({*globals(), *__all__, *HOMES})
