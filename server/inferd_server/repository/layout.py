"""The repository on disk: NAME/VERSION/model.onnx, and NAME/model.yaml beside the versions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inferd_server.errors import SettingsError
from inferd_server.repository.config import ModelConfig, read_model_config

log = logging.getLogger(__name__)
MODEL_FILES = ("model.onnx", "model.ort")
"""Names of a version's model, most wanted first: ONNX, and what ONNX Runtime makes of it."""
CONFIG_FILE = "model.yaml"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model's folder: its settings, and the file of every version to serve."""

    name: str
    config: ModelConfig
    versions: Mapping[int, Path]


def model_names(repository: Path) -> tuple[str, ...]:
    """List the model folders, sorted; hidden ones and those that nobody can name are passed over.

    Raises:
        SettingsError: the repository is not a readable folder.
    """
    try:
        folders = [path for path in repository.iterdir() if path.is_dir()]
    except OSError as error:
        raise SettingsError(
            f"the model repository {repository} cannot be read: {error.strerror}"
        ) from error
    names = sorted(path.name for path in folders if not path.name.startswith("."))
    unnameable = [name for name in names if not is_utf8(name)]
    if unnameable:
        log.warning("names of models must be UTF-8", extra={"passed_over": ascii(unnameable)})
    return tuple(name for name in names if name not in unnameable)


def read_source(repository: Path, name: str, config: ModelConfig | None = None) -> ModelSource:
    """Read the folder of a model, one of `model_names`.

    Args:
        repository: its folder.
        name: of the model.
        config: in place of model.yaml.

    Raises:
        SettingsError: it cannot be read, its model.yaml is wrong, or it holds no version,
            or not one that is asked for.
    """
    folder = repository / name
    config = config or read_model_config(folder / CONFIG_FILE)
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        raise SettingsError(f"{folder} cannot be read: {error.strerror}") from error
    versions = {int(name): model_file(folder / name) for name in names if is_version(name)}
    nearly = [name for name in names if name.isdigit() and not is_version(name)]
    if not versions:
        found = f", not {nearly[0]!r}" if nearly else ""
        raise SettingsError(
            f"{folder} has no version: a folder named 1, 2, ... was expected{found}"
        )
    if nearly:
        passed_over = {"model": name, "passed_over": ", ".join(nearly)}
        log.warning("versions are named 1, 2, ... without a zero before them", extra=passed_over)
    wanted = select_versions(list(versions), config.versions)
    return ModelSource(name, config, {version: versions[version] for version in wanted})


def model_file(version: Path) -> Path:
    """Return the model file of a version's folder; the first name where there is none."""
    there = (version / name for name in MODEL_FILES if (version / name).is_file())
    return next(there, version / MODEL_FILES[0])


def name_of(model: Path) -> str:
    """Return the model that a file of a version belongs to."""
    return model.parent.parent.name


def is_utf8(name: str) -> bool:
    """True for what messages and metrics can hold; a file system takes any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_version(name: str) -> bool:
    """True for 1, 2, 3, ... without leading zeros."""
    return name.isascii() and name.isdigit() and not name.startswith("0")


def select_versions(available: Sequence[int], policy: str | Sequence[int]) -> tuple[int, ...]:
    """Apply a version policy: "latest", "all", or the versions named. Sorted.

    Raises:
        SettingsError: a version that the policy names is not there.
    """
    if policy == "all":
        return tuple(sorted(available))
    if policy == "latest":
        return (max(available),)
    named = {int(version) for version in policy}
    missing = sorted(named - set(available))
    if missing:
        raise SettingsError(
            f"versions names {missing[0]}, and there are {', '.join(map(str, sorted(available)))}"
        )
    return tuple(sorted(named))
