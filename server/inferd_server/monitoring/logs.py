"""Structured logs: one line an event, JSON for machines or text for people."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Mapping
from functools import partial
from typing import TextIO

from pythonjsonlogger.json import JsonFormatter

from inferd_server.errors import InvalidInput
from inferd_server.monitoring.log_sink import LineHandler, handler_of
from inferd_server.monitoring.recent import PLAIN, LogLine, RecentLines
from inferd_server.settings.model import LogSettings

ROOTS = ("inferd_server", "inferd_engines")
LEVELS = ("debug", "info", "warning", "error")


class TextFormatter(logging.Formatter):
    """Writes time, level, message and then name=value pairs."""

    def format(self, record: logging.LogRecord) -> str:
        """Append what was logged in `extra`."""
        line = super().format(record)
        pairs = [f"{k}={_word(v)}" for k, v in vars(record).items() if k not in PLAIN and v != ""]
        head, *trace = line.split("\n", 1)
        return "\n".join([" ".join([head, *pairs]), *trace])


def _word(value: object) -> str:
    """Return a value as one word: quoted where spaces or line ends would tear it apart."""
    text = str(value)
    return text if text.isprintable() and " " not in text else json.dumps(text)


def formatter(settings: LogSettings, stream: TextIO | None) -> logging.Formatter:
    """Choose the format; auto is text on a terminal."""
    terminal = stream is not None and stream.isatty()
    plain = settings.log_format == "text" or (settings.log_format == "auto" and terminal)
    if plain:
        return TextFormatter("%(asctime)s %(levelname)s %(message)s")
    return JsonFormatter(
        "%(asctime)s %(levelname)s %(name)s %(message)s",
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )


class LogControl:
    """The logger of the server, and its settings in the words of LogSettings."""

    def __init__(self, settings: LogSettings, stream: TextIO | None = None, part: str = "") -> None:
        """Prepare.

        Args:
            settings: level and format.
            stream: to write to; None: standard error.
            part: of the server, which stands in every line; "" for the one that speaks for all.
        """
        self._stream = stream = sys.stderr if stream is None else stream
        self._settings = settings
        self._lock = threading.Lock()
        self._loggers = [logging.getLogger(name) for name in ROOTS]
        self._handler = handler_of(stream)
        self._recent = RecentLines()
        if part:
            self._handler.addFilter(partial(mark, part))
            self._recent.addFilter(partial(mark, part))

    def start(self) -> None:
        """Begin to write."""
        self._handler.setFormatter(formatter(self._settings, self._stream))
        for logger in self._loggers:
            logger.addHandler(self._handler)
            logger.addHandler(self._recent)
            logger.propagate = False
            logger.setLevel(self._settings.log_level.upper())

    def stop(self) -> None:
        """Write no more."""
        for logger in self._loggers:
            logger.removeHandler(self._handler)
            logger.removeHandler(self._recent)
            logger.propagate = True
            logger.setLevel(logging.NOTSET)
        self._handler.close()

    def recent(self) -> tuple[LogLine, ...]:
        """Return the last warnings and errors, the oldest first."""
        return self._recent.read()

    def progress(self, text: str) -> None:
        """Show a line below all others while something lasts, on a terminal; "" ends that."""
        if isinstance(self._handler, LineHandler):
            self._handler.show(text)

    def read(self) -> Mapping[str, bool | int | str]:
        """Return the settings as Triton names them."""
        return described(self._loggers[0].getEffectiveLevel())

    def change(self, changes: Mapping[str, bool | int | str]) -> None:
        """Set the level that the merged settings describe.

        Raises:
            InvalidInput: an unknown setting, or one that cannot be changed or be had: severities
                are one level, so none is off while a lesser one is on.
        """
        with self._lock:
            now = self.read()
            for name, value in changes.items():
                check_change(name, value, now)
            level = level_of({**now, **changes})
            got = described(level)
            for name, value in changes.items():
                if bool(value) != bool(got[name]):
                    raise InvalidInput(f"{name} cannot be off while a lesser severity is on")
            for logger in self._loggers:
                logger.setLevel(level)


def mark(part: str, record: logging.LogRecord) -> bool:
    """Write into a record which part of the server it is from."""
    record.part = part
    return True


def check_change(name: str, value: object, now: Mapping[str, bool | int | str]) -> None:
    """Refuse a setting that there is not, that cannot change, or of another type.

    Raises:
        InvalidInput: with the reason.
    """
    if name not in now:
        raise InvalidInput(f"unknown log setting {name!r}; known are {', '.join(now)}")
    if name in {"log_file", "log_format"} and value != now[name]:
        raise InvalidInput(f"{name} cannot be changed while the server runs")
    if type(value) is not type(now[name]):
        kind = type(now[name]).__name__
        raise InvalidInput(f"log setting {name!r} must be of type {kind}")


def described(level: int) -> Mapping[str, bool | int | str]:
    """Return a level as Triton's settings, where they are on."""
    return {
        "log_file": "",
        "log_info": level <= logging.INFO,
        "log_warning": level <= logging.WARNING,
        "log_error": level <= logging.ERROR,
        "log_verbose_level": int(level <= logging.DEBUG),
        "log_format": "default",
    }


def level_of(settings: Mapping[str, bool | int | str]) -> int:
    """Return the one level that on/off switches for each severity ask for."""
    if settings["log_verbose_level"]:
        return logging.DEBUG
    if settings["log_info"]:
        return logging.INFO
    if settings["log_warning"]:
        return logging.WARNING
    return logging.ERROR if settings["log_error"] else logging.CRITICAL + 1
