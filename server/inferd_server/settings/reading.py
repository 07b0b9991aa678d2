"""YAML files of settings: read as mappings, and checked against a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from inferd_server.errors import SettingsError
from inferd_server.regular_file import read_regular

MERGE = "tag:yaml.org,2002:merge"
M = TypeVar("M", bound=BaseModel)
HIDDEN = "hidden"
"""The type of errors about values that must not be shown."""


class UniqueKeys(yaml.SafeLoader):
    """Loads plain values, and refuses a key that is given twice, of which YAML keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping."""
        seen = set()
        for key, _ in node.value:
            # What `<<` merges may be overridden.
            if key.value in seen and key.tag != MERGE:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} is given twice", key.start_mark
                )
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_mapping(path: Path) -> Mapping[str, Any]:
    """Read a YAML file that holds a mapping, or nothing.

    Raises:
        SettingsError: unreadable, not YAML, or not a mapping.
    """
    try:
        content = yaml.load(read_regular(path).decode(), UniqueKeys)  # noqa: S506 it is safe
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: not UTF-8, or a date that does not exist.
        raise SettingsError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise SettingsError(f"{path} must hold names and values, such as 'max_batch_size: 8'")
    return content


def validated(model: type[M], values: Mapping[str, Any], source: str, *, secret: bool = False) -> M:
    """Check values against a model; `secret` ones are not repeated in the error.

    Raises:
        SettingsError: with one clause for each thing that is wrong.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SettingsError(f"{source}: {clauses_of(error, model, secret=secret)}") from error


def clauses_of(error: ValidationError, model: type[BaseModel], *, secret: bool = False) -> str:
    """Return one clause for each thing that is wrong."""
    return "; ".join(
        # What concerns several values has no place of its own.
        f"{'.'.join(str(part) for part in item['loc'])}: {_explain(model, item, secret)}"
        if item["loc"]
        else item["msg"]
        for item in error.errors()
    )


def _explain(model: type[BaseModel], item: Any, secret: bool) -> str:
    if item["type"] == "extra_forbidden":
        inner = _inner(model, item["loc"][:-1])
        return f"unknown; known are {', '.join(sorted(inner.model_fields))}"
    hidden = secret or item["type"] == HIDDEN
    return str(item["msg"]) if hidden else f"{item['msg']} (it is {item['input']!r})"


def _inner(model: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel]:
    """Return the model that a place lies in; keys and indices lead into no other one."""
    for name in path:
        field = model.model_fields.get(str(name))
        if field is not None:
            model = next(_models(field.annotation), model)
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
