"""The transport over grpcio's public asyncio API."""

from inferd_server.transport.aio.server import AioTransport

__all__ = ["AioTransport"]
