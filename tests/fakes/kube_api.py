"""A Kubernetes API server in memory, good enough for helm to install, upgrade, wait and roll back.

It has one namespace and runs nothing: Deployments are ready at once, except those of images told
to stall, and pods and Jobs have succeeded at once. Schemas are left to a function.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

from .kube_discovery import KINDS, documents
from .kube_secret import MAGIC, decode_secret
from .kube_store import Json, Place, Store

DOCUMENTS = documents()
# What is wrong in an object, "" where that is nothing.
Fault = Callable[[Json], str]


class KubeApi(ThreadingHTTPServer):
    """Serves a store over HTTP."""

    # A watch may be open when the test ends.
    daemon_threads = True

    def __init__(self, stalled: Collection[str], fault: Fault) -> None:
        """Bind a free port of the loopback."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.store = Store(stalled)
        self.fault = fault

    def kubeconfig(self) -> str:
        """Return a kubeconfig that leads here (JSON is YAML)."""
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.server_port}"}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        users = {"users": [{"name": "u", "user": {}}]}
        told = {"clusters": [cluster], "contexts": [context], "current-context": "c"}
        return json.dumps({"apiVersion": "v1", "kind": "Config"} | told | users)


@contextmanager
def serving(stalled: Collection[str], fault: Fault) -> Iterator[KubeApi]:
    """Serve until the block ends."""
    with KubeApi(stalled, fault) as api:
        thread = threading.Thread(target=api.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield api
        finally:
            api.store.close()
            api.shutdown()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    server: KubeApi
    raw: bytes

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def answer(self) -> None:
        """Answer any request."""
        # Read whether it is of use or not: what is left would be taken for the next request.
        self.raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlparse(self.path)
        path = url.path.strip("/")
        if path in DOCUMENTS:
            return self.send(200, DOCUMENTS[path])
        before, _, after = path.partition("/namespaces/default/")
        version = before.removeprefix("apis/").removeprefix("api/")
        plural, _, name = after.partition("/")
        if plural not in KINDS.get(version, {}):
            return self.refuse(404, "NotFound")
        place = (version, plural)
        if name or self.command == "POST":
            return self.answer_one(place, name)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if query.get("watch") == "true":
            return self.stream(place)
        items = self.server.store.listed(place, query.get("labelSelector", ""))
        return self.send(200, self.typed(place, {"items": items, "metadata": {}}, "List"))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

    def answer_one(self, place: Place, name: str) -> None:
        """Answer a request for one object."""
        if self.command in ("POST", "PUT", "PATCH"):
            return self.write(place, self.body())
        act = {"GET": self.server.store.get, "DELETE": self.server.store.delete}[self.command]
        found = act(place, name)
        return self.send(200, found) if found else self.refuse(404, "NotFound")

    def write(self, place: Place, body: Json) -> None:
        """Store a whole object, which is what server-side apply of one manager amounts to."""
        name = body["metadata"]["name"]
        wrong = self.server.fault(self.typed(place, body))
        if wrong:
            return self.refuse(422, "Invalid", wrong)
        exists = self.server.store.get(place, name) is not None
        if exists and self.command == "POST":
            return self.refuse(409, "AlreadyExists")
        item = self.server.store.put(place, lambda _: self.typed(place, body), name)
        return self.send(200 if exists else 201, item)

    def stream(self, place: Place) -> None:
        """Send every change as it comes."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        events = self.server.store.watch(place)
        try:
            while (event := events.get()) is not None:
                kind, item = event
                told = {"type": kind, "object": self.typed(place, item)}
                self.wfile.write(json.dumps(told).encode() + b"\n")
        except OSError:
            self.close_connection = True

    def body(self) -> Json:
        """Return the object that was sent."""
        raw = self.raw
        if self.headers.get("Content-Encoding") == "gzip":
            raw = gzip.decompress(raw)
        sent: Json = decode_secret(raw) if raw.startswith(MAGIC) else json.loads(raw)
        return sent

    def typed(self, place: Place, item: Json, suffix: str = "") -> Json:
        """Return an object with its kind, which not everyone sends."""
        version, plural = place
        return {"apiVersion": version, "kind": KINDS[version][plural] + suffix} | item

    def refuse(self, code: int, reason: str, message: str = "") -> None:
        """Send an error as Kubernetes words it."""
        told = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
        self.send(code, told | {"reason": reason, "message": f"{self.path}: {message or reason}"})

    def send(self, code: int, document: Json) -> None:
        """Send a JSON document."""
        raw = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
