"""Remarks on settings that can be used and still are not what was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from inferd_server.settings.model import Settings
from inferd_server.settings.sources import PREFIX, fields, service_link

# Kubernetes sets these in every pod beside a Service whose name begins with inferd.
# Source: Kubernetes, Service, environment variables.
LINK = re.compile(r"INFERD(_\w+)?_(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_\w+)")
OTHERS = {"INFERD_CONFIG", "INFERD_URL", "INFERD_TOKEN", "INFERD_STORE"}
"""Variables that are no settings, and that some command reads."""


def remarks(
    settings: Settings,
    given: Iterable[str],
    environment: Mapping[str, str],
    fronts: int,
    replicas: int = 0,
) -> list[str]:
    """Return a sentence for each setting that has no effect, and each variable that is none.

    Args:
        settings: checked.
        given: names of those that somebody set.
        environment: of the process.
        fronts: processes before a worker; 0: there is no worker.
        replicas: processes that each do everything; 0: there are none.
    """
    said = [*unknown_variables(environment), *passed_over(environment)]
    cache, split = settings.cache, {"fronts", "max_requests", "input_bytes", "answer_bytes"}
    if not fronts:
        where = "with replicas" if replicas else "in one process"
        said += [f"{name} has no effect {where}" for name in sorted(split & set(given))]
    if not replicas and "replicas" in given:
        said.append("replicas has no effect without them: processes: replicas asks for them")
    gpu = settings.engine.plan_store or settings.engine.engine_providers
    if "gpus" in given and not (fronts and gpu):
        said.append(
            "gpus has no effect without processes: split, and plan_store or engine_providers"
        )
    if cache.cache_redis_password_file and not cache.cache_redis_url:
        said.append("cache_redis_password_file has no effect without cache_redis_url")
    return said


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return a sentence for each variable named like a setting that is none."""
    known = {PREFIX + name.upper() for name in fields()} | OTHERS
    said = []
    for name, value in sorted(environment.items()):
        if not name.startswith(PREFIX) or name in known:
            continue
        if LINK.fullmatch(name) or service_link(value):
            continue
        short = [each.removeprefix(PREFIX) for each in known]
        alike = difflib.get_close_matches(name.removeprefix(PREFIX), short, 1)
        cure = f"; did you mean {PREFIX}{alike[0]}?" if alike else ""
        said.append(f"the variable {name} is no setting{cure}")
    return said


def passed_over(environment: Mapping[str, str]) -> list[str]:
    """Return a sentence for each variable of a setting that Kubernetes set for a Service."""
    return [
        f"the variable {PREFIX}{name.upper()} is passed over: {value} is Kubernetes' link to a "
        "Service, not a setting"
        for name in fields()
        if service_link(value := environment.get(PREFIX + name.upper(), ""))
    ]
