"""Who is ready, as pure functions of what is known of the models."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from inferd_server.repository.entries import Entry, State


def still_missing(failed: Collection[str], entries: Iterable[Entry]) -> set[str]:
    """Return the models that failed at the start and were not loaded since."""
    return set(failed) - {entry.name for entry in entries if entry.state is State.READY}


def enough_serve(
    failed: Collection[str],
    ready: Collection[tuple[str, int]],
    sick: Collection[tuple[str, int]],
    strict: bool,
) -> bool:
    """Tell whether the models that serve are enough for the server to be ready.

    Args:
        failed: models that failed at the start.
        ready: versions that are loaded.
        sick: versions that do not answer.
        strict: every model of the start has to serve, and none may be sick.
    """
    well = {name for name, version in ready if (name, version) not in sick}
    ill = {name for name, version in ready if (name, version) in sick} - well
    return not ((set(failed) - well) | ill) if strict else bool(well) or not ill


def model_statuses(
    entries: Iterable[Entry], draining: bool, sick: Collection[tuple[str, int]]
) -> dict[str, bool]:
    """Tell of each model whether it should be asked: one of its versions serves and is not sick."""
    models: dict[str, bool] = {}
    for entry in entries:
        serving = entry.state is State.READY and not draining
        serving = serving and (entry.name, entry.version) not in sick
        models[entry.name] = models.get(entry.name, False) or serving
    return models
