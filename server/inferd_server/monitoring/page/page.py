"""The page and its data, as answers of the metrics port."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from inferd_server.address import beside, is_loopback
from inferd_server.monitoring.alerts.watch import ToldAlert
from inferd_server.monitoring.http import Response
from inferd_server.monitoring.page.numbers import ShownModel, numbers, reasons, served
from inferd_server.monitoring.snapshot import MetricsSnapshot
from inferd_server.settings.model import Settings

DATA = "/page.json"
FILES: Mapping[str, tuple[str, str]] = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
"""Files beside this one, by their paths, and what they are."""
# Nothing of anybody else, and nothing that a name of a model or a line of the log could begin.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class PageSources:
    """Where the page has what it shows from; each function may block."""

    snapshot: Callable[[], MetricsSnapshot]
    """Returns what the whole server counted."""
    models: Callable[[], Sequence[ShownModel]]
    alerts: Callable[[], Sequence[ToldAlert] | None]
    """Returns the last alerts, the oldest first; None where nobody looks for any."""


class StatusPage:
    """What is shown of a server to people who may see it."""

    def __init__(
        self, sources: PageSources, everything: bool, wall: Callable[[], float] = time.time
    ) -> None:
        """Prepare.

        Args:
            sources: of what it shows.
            everything: whether it shows what /metrics does not tell, too: reasons, alerts, log.
            wall: seconds since the epoch.
        """
        self._sources = sources
        self._everything = everything
        self._wall = wall
        folder = files("inferd_server.monitoring.page")
        self._files = {
            path: Response(200, ((folder / name).read_bytes(),), {**HEADERS, "Content-Type": kind})
            for path, (name, kind) in FILES.items()
        }

    def answer(self, path: str) -> Response | None:
        """Return what is at a path; None if nothing is."""
        if path != DATA:
            return self._files.get(path)
        body = json.dumps(self._shown(), separators=(",", ":"), allow_nan=False).encode()
        return Response(200, (body,), {**HEADERS, "Content-Type": "application/json"})

    def _shown(self) -> object:
        sources, now = self._sources, self._sources.snapshot()
        found = {**numbers(now, self._wall()), "everything": self._everything}
        if not self._everything:
            return {**found, "models": served(now.engines, now.plans), "alerts": None, "lines": []}
        return {**found, **reasons(sources.models(), sources.alerts(), now.lines)}


def make_page(settings: Settings, sources: PageSources) -> StatusPage | None:
    """Return the page as the settings say; None where there is to be none.

    What /metrics does not tell is shown where only this machine can look, and the operator did
    not say who may ask what.
    """
    listen, wanted = settings.listen, settings.listen.metrics_page
    host = listen.metrics_host or beside(listen.host)
    private = is_loopback(host) and not settings.security.says_who
    if wanted == "off":
        return None
    return StatusPage(sources, wanted == "all" or (wanted == "auto" and private))
