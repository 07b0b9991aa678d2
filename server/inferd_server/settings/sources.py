"""The sources of settings: flags over environment over file over defaults."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from inferd_server.errors import SettingsError
from inferd_server.settings.model import Settings
from inferd_server.settings.reading import read_mapping, validated

PREFIX = "INFERD_"


def fields() -> dict[str, tuple[str, FieldInfo]]:
    """Return every setting's section and definition, by its flat name."""
    return {
        name: (section, info)
        for section, outer in Settings.model_fields.items()
        for name, info in _section(outer).model_fields.items()
    }


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add --config and a flag for every setting, grouped by section."""
    parser.add_argument(
        "--config", metavar="FILE", help="settings file, YAML or TOML, with the names below"
    )
    for section, outer in Settings.model_fields.items():
        group = parser.add_argument_group(section, _section(outer).__doc__)
        for name, info in _section(outer).model_fields.items():
            flag = "--" + name.replace("_", "-")
            group.add_argument(flag, dest=name, metavar=_metavar(info), help=_help(info))


def load_settings(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Merge all sources into checked settings.

    Args:
        flags: values by name, None where the flag was not given; "config" names the file.
        environment: variables such as INFERD_GRPC_PORT.

    Raises:
        SettingsError: names the source and what is wrong in it.
    """
    merged: dict[str, Any] = {}
    for source, values in _layers(flags, environment):
        _settings({name: _split(name, value) for name, value in values.items()}, source)
        merged |= {name: _split(name, value) for name, value in values.items()}
    return _settings(merged, "the settings")


def origins(flags: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    """Return where the value of each setting comes from, such as "the command line".

    Raises:
        SettingsError: the settings file cannot be read.
    """
    found = dict.fromkeys(fields(), "default")
    for source, values in _layers(flags, environment):
        found |= dict.fromkeys(values, source)
    return found


def _layers(
    flags: Mapping[str, Any], environment: Mapping[str, str]
) -> list[tuple[str, Mapping[str, Any]]]:
    """Return every source of settings by its name, the strongest last."""
    path = flags.get("config") or environment.get(PREFIX + "CONFIG")
    return [
        (f"the settings file {path}", _read(Path(path)) if path else {}),
        ("the environment", _from_environment(environment)),
        ("the command line", {k: v for k, v in flags.items() if v is not None and k in fields()}),
    ]


def shown(value: Any) -> str:
    """Return a value as help and explanations show it."""
    if isinstance(value, tuple):
        return ",".join(value) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _settings(values: Mapping[str, Any], source: str) -> Settings:
    known = fields()
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise SettingsError(
            f"{source}: unknown setting {unknown[0]!r}; known are {', '.join(sorted(known))}"
        )
    sections: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        sections.setdefault(known[name][0], {})[name] = value
    parts = {
        section: validated(_section(Settings.model_fields[section]), content, source)
        for section, content in sections.items()
    }
    return Settings(**parts)


def _read(path: Path) -> Mapping[str, Any]:
    if path.suffix.lower() != ".toml":
        return read_mapping(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings among the variables; an empty one is none, and remarks tell of others."""
    names = {PREFIX + name.upper(): name for name in fields()}
    return {
        names[key]: value
        for key, value in environment.items()
        if key in names and value and not service_link(value)
    }


def service_link(value: str) -> bool:
    """True for what Kubernetes sets for a Service, whatever a variable of that name means here.

    Source: Kubernetes, Service, environment variables: `NAME_PORT=tcp://10.0.0.11:6379`.
    """
    return value.startswith(("tcp://", "udp://", "sctp://"))


def _split(name: str, value: Any) -> Any:
    """Lists are written with commas in flags and environment."""
    known = fields().get(name)
    if isinstance(value, str) and known and get_origin(known[1].annotation) is tuple:
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _section(info: FieldInfo) -> type[BaseModel]:
    assert isinstance(info.annotation, type)
    return info.annotation


def _metavar(info: FieldInfo) -> str:
    choices = getattr(info.annotation, "__args__", ())
    texts = [choice for choice in choices if isinstance(choice, str)]
    if texts:
        return "|".join(texts)
    known: dict[Any, str] = {int: "N", float: "N", bool: "true|false", str: "TEXT", Path: "DIR"}
    return known.get(info.annotation, "LIST")


def _help(info: FieldInfo) -> str:
    default = info.get_default(call_default_factory=False)
    suffix = "" if info.default_factory else f" (default: {shown(default)})"
    return f"{info.description}{suffix}".replace("%", "%%")
