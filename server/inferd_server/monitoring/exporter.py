"""/metrics and the page over HTTP: one thread, however many connect and whatever they send."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
import zlib
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Protocol

from prometheus_client.exposition import choose_encoder

from inferd_server.errors import AddressInUse
from inferd_server.monitoring.bounded_log import BoundedLog
from inferd_server.monitoring.collector import SnapshotCollector
from inferd_server.monitoring.exposition import OPENMETRICS, PLAIN, TextWriter
from inferd_server.monitoring.http import HttpRequest, Response, parse, text_response
from inferd_server.monitoring.page.page import StatusPage

log = logging.getLogger(__name__)

REQUEST_S = 5.0
"""What a caller gets to send its request."""
ANSWER_S = 10.0
"""What a caller gets to take the answer."""
LINGER_S = 1.0
"""What a caller gets to close its end after the answer."""
REST = 3.0
"""Times as long as an answer took to write, nothing is written after it."""
HEAD_BYTES = 16 * 1024
BACKLOG = 64
FASTEST, GZIP = 1, 31
"""zlib's level, which takes a twentieth of the usual one's time for a fifth more bytes, and what
asks it for gzip."""
PATH = "/metrics"
NEWER = "application/openmetrics-text"
OTHER_PATH = (
    f"Only {PATH} is here, and the page at / if metrics_page has one. Health is told over gRPC: "
    "grpc.health.v1 on grpc_port."
)
OTHER_METHOD = (
    f"This port only has GET {PATH}. There is no REST API: inference is gRPC, on grpc_port "
    "(`inferd infer --json` sends requests from a shell)."
)


class Exported(Protocol):
    """What has metrics."""

    @property
    def collector(self) -> SnapshotCollector:
        """Collects them."""


class MetricsServer:
    """Serves /metrics over HTTP, on a thread of its own."""

    def __init__(
        self, metrics: Exported, max_connections: int = 32, page: StatusPage | None = None
    ) -> None:
        """Prepare.

        Args:
            metrics: to be served.
            page: for people, at /; None: there is none.
            max_connections: open at a time. Beyond, those that have waited longest for the rest of
                their request are closed.
        """
        self._pages = Pages(metrics.collector, page)
        self._max_connections = max_connections
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Event, threading.Thread] | None = (
            None
        )

    def start(self, host: str, port: int) -> int:
        """Listen and return the port.

        Raises:
            AddressInUse: the address cannot be bound.
        """
        try:
            listening = listen(host, port)
        except OSError as error:
            raise AddressInUse(
                f"metrics_port {port} on {host} cannot be had: {error.strerror}; "
                "choose another with --metrics-port"
            ) from error
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(Problems())
        ended = asyncio.Event()
        serving = Connections(self._pages, self._max_connections).serve(listening, ended)
        thread = threading.Thread(target=run, args=(loop, serving), name="metrics", daemon=True)
        self._running = loop, ended, thread
        number = int(listening.getsockname()[1])
        thread.start()
        return number

    def stop(self) -> None:
        """Stop listening, and close what is open."""
        if self._running is not None:
            loop, ended, thread = self._running
            self._running = None
            loop.call_soon_threadsafe(ended.set)
            thread.join()


class Pages:
    """What is answered to a request."""

    def __init__(self, collector: SnapshotCollector, page: StatusPage | None) -> None:
        self._collector = collector
        self._page = page
        self._newer, self._older = TextWriter(OPENMETRICS), TextWriter(PLAIN)

    def answer(self, request: HttpRequest) -> Response:
        """Return the metrics, the page, or a sentence that says where to look."""
        if request.method not in {"GET", "HEAD"}:
            return text_response(405, OTHER_METHOD, {"Allow": "GET, HEAD"})
        path = request.target.partition("?")[0]
        found = self._metrics(request) if path == PATH else self._of_page(path)
        if found is None:
            return text_response(404, OTHER_PATH)
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return found
        headers = {**found.headers, "Content-Encoding": "gzip"}
        return Response(found.status, compressed(found.body), headers)

    def _metrics(self, request: HttpRequest) -> Response:
        _, content_type = choose_encoder(request.headers.get("accept", ""))
        writer = self._newer if content_type.startswith(NEWER) else self._older
        parts = writer.write(self._collector.families())
        return Response(200, parts, {"Content-Type": content_type})

    def _of_page(self, path: str) -> Response | None:
        return None if self._page is None else self._page.answer(path)


class Connections:
    """The open connections. On the event loop's thread."""

    def __init__(self, pages: Pages, limit: int) -> None:
        self._pages = pages
        self._limit = limit
        self._open = 0
        self._turn = asyncio.Lock()
        self._rests_until = 0.0
        # Those that have not sent their request yet, the oldest first.
        self._waiting: dict[asyncio.StreamWriter, None] = {}

    async def serve(self, listening: socket.socket, ended: asyncio.Event) -> None:
        """Serve until the end, and close what is open then."""
        server = await asyncio.start_server(
            self._connected, sock=listening, limit=HEAD_BYTES, backlog=BACKLOG
        )
        await ended.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        # Transports that were aborted close their sockets in the next round.
        await asyncio.sleep(0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= self._limit:
            if not self._waiting:
                writer.transport.abort()
                return
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.transport.abort()
        self._open += 1
        try:
            await self._exchange(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._open -= 1

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._waiting[writer] = None
        try:
            async with asyncio.timeout(REQUEST_S):
                request = await read_request(reader)
        finally:
            self._waiting.pop(writer, None)
        if request is None:
            writer.transport.abort()
            return
        response = request if isinstance(request, Response) else await self._in_turn(request)
        without_body = isinstance(request, HttpRequest) and request.method == "HEAD"
        async with asyncio.timeout(ANSWER_S):
            writer.write(response.encoded(without_body=without_body))
            await writer.drain()
            writer.write_eof()
            await take_rest(reader)
        writer.transport.abort()

    async def _in_turn(self, request: HttpRequest) -> Response:
        """Answer after those before, and after a rest: however many ask, callers are served."""
        async with self._turn:
            await asyncio.sleep(max(0.0, self._rests_until - time.monotonic()))
            begun = time.monotonic()
            response = self._answer(request)
            ended = time.monotonic()
            self._rests_until = ended + (ended - begun) * REST
            return response

    def _answer(self, request: HttpRequest) -> Response:
        try:
            return self._pages.answer(request)
        except Exception:
            log.exception("the metrics could not be collected")
            return text_response(500, "The metrics could not be collected; the log says why.")


async def read_request(reader: asyncio.StreamReader) -> HttpRequest | Response | None:
    """Read the head of a request; return what to answer if it is none, None at an early end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return text_response(431, f"The head of a request may have {HEAD_BYTES} bytes.")
    except asyncio.IncompleteReadError:
        return None
    return parse(head) or text_response(400, "This is not a request of HTTP/1.")


async def take_rest(reader: asyncio.StreamReader) -> None:
    """Read on for a moment: what lies unread at the end makes the kernel drop the answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while await reader.read(HEAD_BYTES):
                pass


class Problems:
    """Tells the log what went wrong on the event loop; not each time that descriptors lack."""

    def __init__(self) -> None:
        self._log = BoundedLog(log, time.monotonic)

    def __call__(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log a problem. asyncio waits a second after an accept that failed."""
        error = context.get("exception")
        told = context["message"] if error is None else f"{context['message']}: {error}"
        self._log("", logging.WARNING, "trouble on the metrics port", {"error": told})


def compressed(body: Iterable[bytes]) -> Sequence[bytes]:
    """Return the parts of a body as gzip has them; other threads run meanwhile."""
    compress = zlib.compressobj(FASTEST, wbits=GZIP)
    return [*map(compress.compress, body), compress.flush()]


def listen(host: str, port: int) -> socket.socket:
    """Bind an address.

    Raises:
        OSError: it cannot be bound.
    """
    family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, number)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def run(loop: asyncio.AbstractEventLoop, serving: Coroutine[Any, Any, None]) -> None:
    """Run to the end, on a thread of its own."""
    try:
        loop.run_until_complete(serving)
    finally:
        loop.close()
