"""The log of the server, started on a stream that a test reads."""

from __future__ import annotations

import io
import json
from typing import Any, Literal

from inferd_server.monitoring.logs import LogControl
from inferd_server.settings.model import LogSettings

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "text"]


class Logs:
    """The logger of the server, started, and what it wrote."""

    def __init__(self, stream: io.StringIO) -> None:
        self.stream = stream
        self.controls: list[LogControl] = []

    def start(self, kind: Format = "json", level: Level = "info") -> LogControl:
        control = LogControl(LogSettings(log_format=kind, log_level=level), self.stream)
        self.controls.append(control)
        control.start()
        return control

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]
