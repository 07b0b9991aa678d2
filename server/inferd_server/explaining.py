"""Gathers what `inferd serve --explain` tells."""

from __future__ import annotations

import argparse
import os
from importlib.metadata import version

from inferd_engines.cores import usable_cores

from inferd_server import environment
from inferd_server.explain import Facts, Setting, explain
from inferd_server.settings.model import Settings
from inferd_server.settings.sources import fields, origins, shown
from inferd_server.supervisor.policy import Arrangement
from inferd_server.transport.chosen import without_effect
from inferd_server.transport.making import decide
from inferd_server.transport.options import transport_options


def explanation(
    arguments: argparse.Namespace, settings: Settings, arrangement: Arrangement
) -> list[str]:
    """Return the lines that say what would serve, and why."""
    origin = origins(vars(arguments), os.environ)
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
