"""`inferd serve --explain`: what would serve, how it was set up, and by whom. No decisions here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from inferd_engines.cores import usable_cores

from inferd_server import environment
from inferd_server.errors import SettingsError, StartupError
from inferd_server.models.layout import model_names, read_source
from inferd_server.models.pbtxt import PBTXT_FILE
from inferd_server.models.trust import check_trust
from inferd_server.processes.policy import Arrangement
from inferd_server.security.opening import check_security
from inferd_server.settings.model import Settings
from inferd_server.settings.sources import fields, origins, shown
from inferd_server.transport.listening import check_host
from inferd_server.transport.making import decide, without_effect
from inferd_server.transport.options import transport_options

GAP = "  "


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its value as text, and where that came from."""

    name: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class HostFacts:
    """All that is explained."""

    settings: Sequence[Setting]
    environment: Mapping[str, str]
    """Of the process."""
    wanted: Mapping[str, str]
    """What the product sets there, unless the operator did."""
    transport: str
    reason: str
    """Why it is not the one that was wanted; empty where it is."""
    asked: str
    """The setting `transport`."""
    grpcio: str
    problems: Sequence[str]
    """What of the environment has no effect, or makes requests slow."""
    arrangement: str
    """Of processes."""
    arrangement_reason: str
    cores: int
    affinity: int
    """Cores that the scheduler allows, before the container's limit."""
    triton: Sequence[tuple[str, str, str]] = ()
    """Models with a config.pbtxt: name, settings, and what has no effect or is wrong."""


def explain(facts: HostFacts) -> list[str]:
    """Return the lines, in aligned columns."""
    return [
        "Settings",
        *aligned((setting.name, setting.value, setting.origin) for setting in facts.settings),
        "",
        "Environment (of this process, set before gRPC and the allocator are loaded)",
        *aligned(
            (name, facts.environment.get(name, "(unset)"), setter(name, facts))
            for name in facts.wanted
        ),
        *(f"{GAP}! {problem}" for problem in facts.problems),
        "",
        "Transport",
        *aligned([(facts.transport, why(facts))]),
        "",
        "Processes",
        *aligned([(facts.arrangement, facts.arrangement_reason)]),
        "",
        "Cores",
        *aligned([(str(facts.cores), seen(facts))]),
        *(["", "Models with a config.pbtxt", *aligned(facts.triton)] if facts.triton else []),
    ]


def setter(name: str, facts: HostFacts) -> str:
    """Say who set a variable; one that the operator set to the same value counts as inferd's."""
    wanted = facts.wanted[name]
    if facts.environment.get(name) == wanted:
        return "set by inferd"
    return f"set by the operator; inferd would set {wanted}"


def why(facts: HostFacts) -> str:
    """Say why this transport serves."""
    if facts.reason:
        return f"instead of the one asked for ({facts.asked}): {facts.reason}"
    if facts.transport == "aio":
        return "asked for"
    return f"the self-test with grpcio {facts.grpcio} passed"


def seen(facts: HostFacts) -> str:
    """Say where the number of cores comes from."""
    if facts.cores < facts.affinity:
        return f"the container's CPU limit; the scheduler would allow {facts.affinity}"
    return "that the scheduler allows this process"


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Return rows of texts as indented lines, every column but the last as wide as its widest."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        GAP + GAP.join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def problems_of(settings: Settings) -> list[str]:
    """Return why a server with these settings would not start."""
    checks: tuple[Callable[[], object], ...] = (
        lambda: check_host(settings.listen.host),
        lambda: model_names(settings.repository.model_repository),
        lambda: check_security(settings),
        lambda: check_trust(settings.seal),
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
    facts = HostFacts(
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
        triton=triton_models(settings.repository.model_repository),
    )
    return explain(facts)


def triton_models(repository: Path) -> list[tuple[str, str, str]]:
    """Return what is made of every config.pbtxt: name, settings, what has no effect or is wrong."""
    try:
        names = model_names(repository)
    except SettingsError:
        # Said among the problems.
        return []
    return [triton_model(repository, n) for n in names if (repository / n / PBTXT_FILE).exists()]


def triton_model(repository: Path, name: str) -> tuple[str, str, str]:
    """Return what is made of a model's config.pbtxt."""
    try:
        source = read_source(repository, name)
    except SettingsError as error:
        return name, "not served", str(error)
    taken = source.config.model_dump(include=source.config.model_fields_set)
    settings = ", ".join(f"{key}: {value}" for key, value in taken.items())
    passed_over = ", ".join(source.without_effect)
    return name, settings, f"without effect: {passed_over}" if passed_over else ""
