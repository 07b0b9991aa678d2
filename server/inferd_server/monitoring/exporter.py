"""/metrics over HTTP."""

from __future__ import annotations

import os
import selectors
import socket
import threading
from socketserver import ThreadingMixIn
from typing import Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from inferd_server.errors import AddressInUse


class Exported(Protocol):
    """What has metrics."""

    @property
    def registry(self) -> CollectorRegistry:
        """Where they are collected from."""


class MetricsServer:
    """Serves /metrics over HTTP, on a thread of its own."""

    def __init__(self, metrics: Exported) -> None:
        self._registry = metrics.registry
        self._running: tuple[WSGIServer, threading.Thread, int] | None = None

    def start(self, host: str, port: int) -> int:
        """Listen and return the port.

        Raises:
            AddressInUse: the address cannot be bound.
        """
        try:
            server = listen(host, port, self._registry)
        except OSError as error:
            raise AddressInUse(
                f"metrics_port {port} on {host} cannot be had: {error.strerror}; "
                "choose another with --metrics-port"
            ) from error
        # The end of a pipe says when to stop: the standard library's own way asks twice a second.
        waking, wake = os.pipe()
        thread = threading.Thread(target=serve, args=(server, waking), name="metrics", daemon=True)
        self._running = server, thread, wake
        thread.start()
        return int(server.server_port)

    def stop(self) -> None:
        """Stop listening."""
        if self._running is not None:
            server, thread, wake = self._running
            self._running = None
            os.close(wake)
            thread.join()
            server.server_close()


class QuietHandler(WSGIRequestHandler):
    """Logs no requests."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the library's name
        """Say nothing."""


class ThreadedServer(ThreadingMixIn, WSGIServer):
    """A thread for each request, so that a slow reader holds nobody up."""

    daemon_threads = True
    block_on_close = False
    # A connection that is gone by the time it is accepted must not block either.
    timeout = 0


class ThreadedServer6(ThreadedServer):
    """The same over IPv6."""

    address_family = socket.AF_INET6


def listen(host: str, port: int, registry: CollectorRegistry) -> WSGIServer:
    """Bind an address and serve a registry there, once `serve` runs.

    Raises:
        OSError: it cannot be bound.
    """
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    kind = ThreadedServer6 if family == socket.AF_INET6 else ThreadedServer
    app = make_wsgi_app(registry)
    return make_server(str(address[0]), port, app, server_class=kind, handler_class=QuietHandler)


def serve(server: WSGIServer, waking: int) -> None:
    """Handle requests until the other end of the pipe `waking` is closed."""
    with selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ)
        selector.register(waking, selectors.EVENT_READ)
        while all(key.fd != waking for key, _ in selector.select()):
            server.handle_request()
    os.close(waking)
