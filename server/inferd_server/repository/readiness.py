"""Who is ready, as pure functions of what is known of the models."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from inferd_server.repository.entries import Entry, State


def still_missing(failed: Collection[str], entries: Iterable[Entry]) -> set[str]:
    """Return the models that failed at the start and were not loaded since."""
    return set(failed) - {entry.name for entry in entries if entry.state is State.READY}


def model_statuses(entries: Iterable[Entry], draining: bool) -> dict[str, bool]:
    """Tell of each model whether it should be asked: one of its versions serves."""
    models: dict[str, bool] = {}
    for entry in entries:
        serving = entry.state is State.READY and not draining
        models[entry.name] = models.get(entry.name, False) or serving
    return models
