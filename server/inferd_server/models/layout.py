"""The repository on disk: NAME/VERSION/model.onnx, and NAME/model.yaml beside the versions.

A version's own model.yaml, in its folder, takes the place of that. What follows a store writes
NAME/serving.json besides (`serving.py`), which says what serves, and under which labels.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inferd_engines.onnx_errors import maker_of

from inferd_server.errors import SettingsError
from inferd_server.models.config import ModelConfig, latest_of, read_model_config
from inferd_server.models.pbtxt import PBTXT_FILE
from inferd_server.models.serving import Serving, read_serving
from inferd_server.models.triton_config import DeclaredTensor, TritonModel, read_triton
from inferd_server.settings.reading import read_mapping, validated

log = logging.getLogger(__name__)
MODEL_FILES = ("model.onnx", "model.ort")
"""Names of a version's model, most wanted first: ONNX, and what ONNX Runtime makes of it."""
CONFIG_FILE = "model.yaml"
SUFFIXES = {".onnx", ".ort"}
FILES_ABSENT = "MODEL_FILES_ABSENT"
"""The reason of errors about files that are not there, and may be later."""
NO_MODELS = frozenset({
    "lost+found", "__pycache__", "@eaDir", "#recycle", "$RECYCLE.BIN",
    "System Volume Information",
})  # fmt: skip
"""Folders that file systems, storage devices and Python make by themselves."""
MOST_NAMED = 8
"""Files that a line of the log names."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model's folder: its settings, and the file of every version to serve."""

    name: str
    config: ModelConfig
    versions: Mapping[int, Path]
    declared: tuple[DeclaredTensor, ...] = ()
    """What its config.pbtxt says of inputs and outputs; the file alone knows the rest."""
    without_effect: tuple[str, ...] = ()
    """Fields of its config.pbtxt that say what is not done here."""
    configs: Mapping[int, ModelConfig] = field(default_factory=dict)
    """Of versions that have settings of their own."""
    labels: Mapping[str, int] = field(default_factory=dict)
    """Versions by label; "" is what serves requests that name none."""
    left: frozenset[int] = frozenset()
    """Versions that do not serve and should: why they do not is told on."""

    def config_of(self, version: int) -> ModelConfig:
        """Return the settings of a version."""
        return self.configs.get(version, self.config)


def model_names(repository: Path) -> tuple[str, ...]:
    """List the models, sorted; what is hidden, and what nobody can name, is passed over.

    Raises:
        SettingsError: the repository is neither a readable folder nor a model file.
    """
    if is_model_file(repository):
        return (single(repository)[0],)
    names = sorted(name for name in _folders(repository) if name not in NO_MODELS)
    unnameable = [name for name in names if not is_utf8(name)]
    if unnameable:
        log.warning("names of models must be UTF-8", extra={"passed_over": ascii(unnameable)})
    return tuple(name for name in names if name not in unnameable)


def _folders(repository: Path) -> list[str]:
    try:
        folders = [path.name for path in repository.iterdir() if path.is_dir()]
    except OSError as error:
        maker = maker_of(repository) if repository.is_file() else ""
        what = f"is {maker}" if maker else f"cannot be read: {error.strerror}"
        raise SettingsError(f"model_repository: {repository} {what}") from error
    return [name for name in folders if not name.startswith(".")]


def read_source(repository: Path, name: str, config: ModelConfig | None = None) -> ModelSource:
    """Read the folder of a model, one of `model_names`.

    Args:
        repository: its folder.
        name: of the model.
        config: in place of model.yaml and of what config.pbtxt says of the same.

    Raises:
        SettingsError: it cannot be read, a file of its settings is wrong, or it holds no version,
            or not one that is asked for.
    """
    if is_model_file(repository):
        return ModelSource(name, ModelConfig(), {single(repository)[1]: repository})
    folder = repository / name
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        raise SettingsError(f"{folder} cannot be read: {error.strerror}") from error
    numbers = [int(name) for name in names if is_version(name)]
    triton = read_triton(folder) or TritonModel({})
    given, config = config, config or read_folder_config(folder, triton)
    versions = {number: model_file(folder / str(number), triton.file_name) for number in numbers}
    nearly = [name for name in names if name.isdigit() and not is_version(name)]
    if not versions:
        found = f", not {nearly[0]!r}" if nearly else ""
        text = f"{folder} has no version: a folder named 1, 2, ... was expected{found}"
        raise SettingsError(text + _misplaced(folder), reason=FILES_ABSENT)
    if nearly:
        passed_over = {"model": name, "passed_over": ", ".join(nearly)}
        log.warning("versions are named 1, 2, ... without a zero before them", extra=passed_over)
    serving = read_serving(folder) or Serving(config.versions)
    wanted = select_versions(list(versions), serving.versions)
    files = {version: versions[version] for version in wanted}
    return ModelSource(
        name,
        config,
        files,
        triton.declared,
        triton.without_effect,
        {} if given else own_configs(files),
        serving.labels,
        frozenset(serving.left),
    )


def own_configs(versions: Mapping[int, Path]) -> dict[int, ModelConfig]:
    """Read the model.yaml of versions that have one of their own.

    Raises:
        SettingsError: one is wrong.
    """
    return {
        version: read_model_config(model.parent / CONFIG_FILE)
        for version, model in versions.items()
        if (model.parent / CONFIG_FILE).exists()
    }


def config_folder(model: Path) -> Path:
    """Return where the model.yaml of a version is, and what it names lies beside.

    Args:
        model: the version's model file.
    """
    return model.parent if (model.parent / CONFIG_FILE).exists() else model.parents[1]


def read_folder_config(folder: Path, triton: TritonModel) -> ModelConfig:
    """Return the settings of a folder: those of model.yaml, and for what it leaves out, Triton's.

    Raises:
        SettingsError: one of them cannot be read, or says something unknown or impossible.
    """
    path = folder / CONFIG_FILE
    if not triton.settings:
        return read_model_config(path)
    # A link that leads nowhere is a mistake, not an empty file.
    there = path.exists() or path.is_symlink()
    values = {**triton.settings, **(read_mapping(path) if there else {})}
    source = f"{folder / PBTXT_FILE} and {CONFIG_FILE}" if there else str(folder / PBTXT_FILE)
    return validated(ModelConfig, values, source)


def model_file(version: Path, name: str = "") -> Path:
    """Return the model file of a version's folder; the first name where there is none.

    Args:
        version: the folder.
        name: of the file; "": the usual ones.
    """
    names = (name,) if name else MODEL_FILES
    there = (version / name for name in names if (version / name).is_file())
    return next(there, version / names[0])


def _misplaced(folder: Path) -> str:
    """Say what to do about model files that lie beside the versions, if any do."""
    files = model_files(folder)
    if not files:
        return ""
    return f"; move {files[0]} into one, or serve it alone: inferd serve {folder / files[0]}"


def warnings_of(repository: Path) -> list[tuple[str, dict[str, str]]]:
    """Return what should be said of a repository's content: a message, and its details.

    Raises:
        SettingsError: it is neither a readable folder nor a model file.
    """
    if is_model_file(repository):
        return []
    said = []
    names, files = model_names(repository), model_files(repository)
    passed_over = sorted(NO_MODELS.intersection(_folders(repository)))
    wanted = {"looked_for": str(repository / "NAME" / "VERSION" / MODEL_FILES[0])}
    if passed_over:
        details = {"passed_over": ", ".join(passed_over)}
        said.append(("folders that hold no models are passed over", details))
    if not names:
        found = ", ".join(sorted(path.name for path in repository.iterdir())[:MOST_NAMED])
        details = {**wanted, "found": found or "nothing", "cure": cure(repository, files)}
        said.append(("no model was found", details))
    elif files:
        details = {**wanted, "files": ", ".join(files), "cure": cure(repository, files)}
        said.append(("model files beside the models' folders are not served", details))
    if names and all(is_version(name) for name in names):
        details = {**wanted, "cure": f"give the folder around it: {repository.absolute().parent}"}
        said.append(("the repository looks like the folder of a single model", details))
    return said


def cure(repository: Path, files: Sequence[str]) -> str:
    """Say how model files at the top of a repository can be served; "" if there are none."""
    if not files:
        return ""
    return f"inferd serve {repository / files[0]} serves it alone"


def model_files(folder: Path) -> list[str]:
    """List the files of a folder that are named like models, sorted; none if it is unreadable."""
    try:
        return sorted(path.name for path in folder.iterdir() if is_model_file(path))
    except OSError:
        return []


def is_model_file(path: Path) -> bool:
    """True for a file that is named like a model."""
    return path.suffix in SUFFIXES and path.is_file()


def single(file: Path) -> tuple[str, int]:
    """Return name and version of a model that is served from a file alone.

    One that lies in a repository keeps what it has there; any other is named after its file.
    """
    folders = file.absolute().parents
    if file.name in MODEL_FILES and is_version(folders[0].name) and folders[1].name:
        return folders[1].name, int(folders[0].name)
    return file.stem, 1


def bytes_of(model: Path, repository: Path) -> int:
    """Return the bytes of a version's file and, in a repository, of its weights beside it."""
    files = [model] if model == repository else model.parent.iterdir()
    return sum(path.stat().st_size for path in files if path.is_file())


def holds(repository: Path, name: str, version: int) -> bool:
    """True unless a version is known not to be in a repository; version 0: the model."""
    if is_model_file(repository):
        return name == single(repository)[0]
    folder = repository / name
    try:
        return (folder / str(version) if version else folder).is_dir()
    except OSError:
        return True


def name_of(repository: Path, model: Path) -> str:
    """Return the model that a file of a version belongs to."""
    return single(repository)[0] if is_model_file(repository) else model.parent.parent.name


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
    """Apply a version policy: "latest", "latest:2", "all", or the versions named. Sorted.

    Raises:
        SettingsError: a version that the policy names is not there.
    """
    if policy == "all":
        return tuple(sorted(available))
    if isinstance(policy, str):
        return tuple(sorted(available)[-latest_of(policy) :])
    named = {int(version) for version in policy}
    missing = sorted(named - set(available))
    if missing:
        raise SettingsError(
            f"versions names {missing[0]}, and there are {', '.join(map(str, sorted(available)))}"
        )
    return tuple(sorted(named))
