"""Gathers what `inferd serve --explain` tells."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from inferd_engines.cores import usable_cores

from inferd_server import environment
from inferd_server.errors import SettingsError, StartupError
from inferd_server.explain import Facts, Setting, explain
from inferd_server.repository.layout import model_names
from inferd_server.security.opening import check_security
from inferd_server.settings.model import Settings
from inferd_server.settings.sources import fields, origins, shown
from inferd_server.supervisor.policy import Arrangement
from inferd_server.transport.chosen import without_effect
from inferd_server.transport.listening import check_host
from inferd_server.transport.making import decide
from inferd_server.transport.options import transport_options


def problems_of(settings: Settings) -> list[str]:
    """Return why a server with these settings would not start."""
    checks: tuple[Callable[[], object], ...] = (
        lambda: check_host(settings.listen.host),
        lambda: model_names(settings.repository.model_repository),
        lambda: check_security(settings),
        lambda: check_readable(settings),
    )
    return [problem for problem in map(_problem, checks) if problem]


def _problem(check: Callable[[], object]) -> str:
    try:
        check()
    except StartupError as error:
        return str(error)
    return ""


def check_readable(settings: Settings) -> None:
    """See whether the file with Redis' password can be read.

    Raises:
        SettingsError: it cannot.
    """
    path = settings.cache.cache_redis_password_file
    try:
        if path:
            Path(path).read_bytes()
    except OSError as error:
        text = f"cache_redis_password_file: {path} cannot be read: {error.strerror}"
        raise SettingsError(text) from error


def explanation(
    flags: Mapping[str, Any], settings: Settings, arrangement: Arrangement
) -> list[str]:
    """Return the lines that say what would serve, and why."""
    origin = origins(flags, os.environ)
    options = transport_options(settings.listen)
    choice = decide(settings.listen.transport, options)
    facts = Facts(
        settings=[
            Setting(name, shown(getattr(getattr(settings, section), name)), origin[name])
            for name, (section, _) in fields().items()
        ],
        environment=os.environ,
        wanted=environment.WANTED,
        transport=choice.name,
        reason=choice.reason,
        asked=settings.listen.transport,
        grpcio=version("grpcio"),
        problems=without_effect(choice, options),
        arrangement=arrangement.described,
        arrangement_reason=arrangement.reason,
        cores=settings.engine.cores or usable_cores(),
        affinity=len(os.sched_getaffinity(0)),
    )
    return explain(facts)
