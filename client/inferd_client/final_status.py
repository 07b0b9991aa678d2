"""The status with which a server ended an asyncio stream.

When a write fails because the call is over, grpc.aio overwrites the status that the server
gave with INTERNAL (grpc/grpc#36066); so it is read here in the moment it is set.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc


class FinalStatus:
    """Watches a call; `error` is the grpc.RpcError that it first ended with, if any."""

    def __init__(self, call: Any) -> None:
        self.error: Any = None  # grpc types no RpcError's methods
        call.add_done_callback(self._keep)

    def _keep(self, call: Any) -> None:
        if self.error is not None:
            return
        # On a finished call this raises its status without ever waiting.
        reading = call.read()
        try:
            reading.send(None)
        except grpc.RpcError as error:
            self.error = error
        except (StopIteration, asyncio.CancelledError):
            return
        finally:
            reading.close()
