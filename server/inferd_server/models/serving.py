"""NAME/serving.json: what serves of a model, where that is decided elsewhere than in model.yaml."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inferd_server.errors import SettingsError

SERVING_FILE = "serving.json"


@dataclass(frozen=True, slots=True)
class Serving:
    """What serves of a model, and under which names."""

    versions: str | Sequence[int]
    """As in model.yaml: latest, all, or numbers."""
    labels: Mapping[str, int] = field(default_factory=dict)
    """Versions by label; "" is what serves requests that name none."""
    left: Sequence[int] = ()
    """Versions that do not serve and should: why they do not is told on."""


def read_serving(folder: Path) -> Serving | None:
    """Read the file in a model's folder; None where there is none.

    Raises:
        SettingsError: it cannot be read.
    """
    path = folder / SERVING_FILE
    try:
        document = json.loads(path.read_bytes())
        versions = [int(version) for version in document["versions"]]
        left = [int(version) for version in document["left"]]
        labels = {str(label): int(version) for label, version in document["labels"].items()}
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"{path} is not as inferd writes it: {error!r}") from error
    return Serving(versions, labels, left)


def write_serving(folder: Path, serving: Serving) -> None:
    """Write the file, all of it at once.

    Raises:
        OSError: it cannot be written.
    """
    parts = {"versions": list(serving.versions), "left": list(serving.left)}
    document = {**parts, "labels": dict(serving.labels)}
    beside = folder / f".{SERVING_FILE}"
    beside.write_text(json.dumps(document), encoding="utf-8")
    beside.rename(folder / SERVING_FILE)
