"""Readiness, as pure functions of what is known of the models."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

from inferd_server.models.entries import ModelEntry, State


def still_missing(failed: Collection[str], entries: Iterable[ModelEntry]) -> set[str]:
    """Return the models that failed at the start and were not loaded since."""
    return set(failed) - {entry.name for entry in entries if entry.state is State.READY}


def not_serving(
    wanted: Collection[str],
    ready: Collection[tuple[str, int]],
    sick: Collection[tuple[str, int]],
) -> set[str]:
    """Return the models that should serve and do not.

    Args:
        wanted: models that should be loaded.
        ready: versions that are loaded.
        sick: versions that do not answer.
    """
    return (set(wanted) | {name for name, _ in ready}) - serving(ready, sick)


def serving(ready: Collection[tuple[str, int]], sick: Collection[tuple[str, int]]) -> set[str]:
    """Return the models of which a version is loaded and answers."""
    return {name for name, version in ready if (name, version) not in sick}


def enough_serve(
    wanted: Collection[str],
    ready: Collection[tuple[str, int]],
    sick: Collection[tuple[str, int]],
    strict: bool,
    without_models: bool = False,
) -> bool:
    """Tell whether the models that serve are enough for the server to be ready.

    Args:
        wanted: models that should be loaded: those of the start, and those loaded since.
        ready: versions that are loaded.
        sick: versions that do not answer.
        strict: all of these have to serve; else one is enough.
        without_models: ready, too, where there is no model that should serve.
    """
    if not wanted and not ready:
        return without_models
    if strict:
        return not not_serving(wanted, ready, sick)
    return bool(serving(ready, sick))


def why_not_ready(missing: Collection[str]) -> dict[str, str]:
    """Return what the log says beside "not ready"; `missing` are models that should serve."""
    if missing:
        return {"failed": ", ".join(sorted(missing))}
    return {"why": "no model is there; ready_without_models: true makes that ready"}


def model_statuses(
    entries: Iterable[ModelEntry], draining: bool, sick: Collection[tuple[str, int]]
) -> dict[str, bool]:
    """Tell of each model whether it should be asked: one of its versions serves and is not sick."""
    models: dict[str, bool] = {}
    for entry in entries:
        serving = entry.state is State.READY and not draining
        serving = serving and (entry.name, entry.version) not in sick
        models[entry.name] = models.get(entry.name, False) or serving
    return models


class Agreement(Protocol):
    """What the processes of one load wait for; both methods block."""

    def opened(self) -> None:
        """Wait until every process has opened the model.

        Raises:
            InferdError: another one could not; this one is to close what it opened.
        """

    def taking(self) -> None:
        """Wait until every process takes requests for the model."""
