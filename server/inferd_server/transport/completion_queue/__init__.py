"""The transport that drives gRPC core's completion queue directly."""

from inferd_server.transport.completion_queue.server import CompletionQueueTransport

__all__ = ["CompletionQueueTransport"]
