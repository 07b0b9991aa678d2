"""Every setting, metric, flag, reason and value that a page names is there."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2
from inferd.oip.v2 import inference_pb2, model_config_pb2
from inferd.orca.v3 import load_report_pb2, service_pb2
from inferd.v1 import feedback_pb2, server_pb2
from inferd_client.cli import flags_of, operations_of
from inferd_server import errors
from inferd_server.models.config import ModelConfig
from inferd_server.security.identities_file import IdentitiesFile
from inferd_server.settings.sources import fields
from inferd_server.transport.status import code_name, reason
from pydantic import BaseModel

from .pages import PAGES, blocks, quoted, tables

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "server/inferd_server",
    "engines/inferd_engines",
    "seal/inferd_seal",
    "store/inferd_store",
)
SOURCES = [ROOT / name for name in PACKAGES]
CLIENT = ROOT / "client/inferd_client"
each_page = pytest.mark.parametrize("page", PAGES)
# The others name much of other programs: of exporters, of TensorRT and of Triton.
each_of_ours = pytest.mark.parametrize(
    "page", sorted(PAGES.keys() - {"benchmarks", "exporting", "gpu", "triton"})
)
OTHER_VARIABLES = {
    *("BASE_IMAGE", "NOT_READY"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"),
}
OTHER_FLAGS = {"--format"}
# Of nginx and Envoy.
OTHER_NAMES = {
    *("blackout_period", "client_side_weighted_round_robin", "enable_oob_load_report"),
    *("fail_timeout", "healthy_panic_threshold", "no_traffic_interval"),
}


def settings_of(model: type[BaseModel]) -> Iterator[str]:
    """Yield the names of a model's fields, and of those of the models in it."""
    for name, info in model.model_fields.items():
        yield name
        for part in parts(info.annotation):
            yield from settings_of(part)


def parts(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from parts(inner)


def contract(described: FileDescriptor) -> Iterator[str]:
    """Yield every message, field, service and method of a .proto file."""
    pending = list(described.message_types_by_name.values())
    while pending:
        message = pending.pop()
        pending += message.nested_types
        yield message.name
        yield from (field.name for field in message.fields)
        yield from (value.name for kind in message.enum_types for value in kind.values)
    for service in described.services_by_name.values():
        yield from (service.name, service.full_name, *(method.name for method in service.methods))


@cache
def texts() -> frozenset[str]:
    """Return every text in the sources of server, engines and client."""
    found: set[str] = set()
    for folder in (*SOURCES, CLIENT):
        for path in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
                elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    found.add(node.name)
                elif isinstance(node, ast.arg):
                    found.add(node.arg)
    return frozenset(found)


@cache
def names() -> frozenset[str]:
    """Return every name of ours that a page may use."""
    known = {*fields(), *settings_of(ModelConfig), *settings_of(IdentitiesFile), *texts()}
    described_in = (inference_pb2, model_config_pb2, server_pb2, feedback_pb2, health_pb2)
    for described in (*described_in, load_report_pb2, service_pb2):
        known |= set(contract(described.DESCRIPTOR))
    return frozenset(known)


@cache
def reasons() -> frozenset[str]:
    """Return every reason of an error, and the names of gRPC's codes that errors have."""
    found = {name for kind in error_classes() for name in (reason(kind("")), code_name(kind("")))}
    return frozenset(found | texts() | {"INTERNAL", "UNIMPLEMENTED"})


@cache
def codes() -> dict[str, set[str]]:
    """Return the codes that errors of each reason have, where the class is told with the reason."""
    found: dict[str, set[str]] = {}
    kinds = {kind.__name__: kind for kind in error_classes()}
    for kind in kinds.values():
        found.setdefault(reason(kind("")), set()).add(code_name(kind("")))
    for path in SOURCES[0].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                given = [word.value for word in node.keywords if word.arg == "reason"]
                if node.func.id in kinds and given and isinstance(given[0], ast.Constant):
                    told = found.setdefault(str(given[0].value), set())
                    told.add(code_name(kinds[node.func.id]("")))
    return found


def error_classes() -> list[type[errors.InferdError]]:
    """Return every class of the error tree."""
    kinds = [errors.InferdError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return kinds


@cache
def flags() -> frozenset[str]:
    """Return the flags of every command."""
    found: set[str] = set()
    for entry in entry_points(group="inferd.commands"):
        parser = argparse.ArgumentParser()
        entry.load().configure(parser)
        for each in (parser, *operations_of(parser).values()):
            found |= set(flags_of(each))
    return frozenset(found)


def chart_values() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "helm/inferd/values.yaml").read_text())
    return loaded


def is_value(path: str) -> bool:
    """True for the path of a value of the chart."""
    place: Any = chart_values()
    for part in path.split("."):
        if not isinstance(place, dict) or part not in place:
            return False
        place = place[part]
    return True


@each_of_ours
def test_names_with_underscores_are_names_of_ours(page: str) -> None:
    words = {re.split(r"[:{(=]", text)[0].strip() for text in quoted(PAGES[page])}
    told = {word for word in words if re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", word)}
    assert told - names() - OTHER_NAMES == set()


@each_page
def test_reasons_and_codes_are_told_as_the_server_tells_them(page: str) -> None:
    told = {word for word in quoted(PAGES[page]) if re.fullmatch(r"[A-Z]+(_[A-Z]+)+", word)}
    variables = {word for word in told if word.startswith("INFERD_")}
    known = {f"INFERD_{name.upper()}" for name in fields()} | texts()
    assert {name for name in variables if not name.startswith("INFERD_TEST_")} - known == set()
    assert told - variables - reasons() - OTHER_VARIABLES == set()


REASONS = [
    (page, told, code.strip("`"))
    for page, column in (("security", 1), ("scheduling", 0))
    for head, rows in tables(PAGES[page])
    if head[column] in {"code", "status"}
    for cells in rows
    for code in [cells[column]]
    for told in re.findall("`([A-Z_]+)`", cells[column + 1])
]


@pytest.mark.parametrize(("page", "told", "code"), REASONS)
def test_a_reason_has_the_code_of_its_table(page: str, told: str, code: str) -> None:
    assert codes().get(told, {code}) == {code}


def test_the_tables_of_reasons_are_found() -> None:
    assert len(REASONS) >= 10
    assert sum(told in codes() for _, told, _ in REASONS) >= 8


@each_page
def test_flags_are_those_of_a_command(page: str) -> None:
    told = {word.split()[0] for word in quoted(PAGES[page]) if word.startswith("--")}
    assert told - flags() - OTHER_FLAGS == set()


@each_page
def test_values_of_the_chart_are_there(page: str) -> None:
    tops = set(chart_values())
    told = {re.split("[=]", word)[0] for word in quoted(PAGES[page])}
    paths = {word for word in told if re.fullmatch(r"[a-zA-Z]+(\.[a-zA-Z]+)+", word)}
    # alerts.yaml is a file.
    ours = {path for path in paths if path.split(".")[0] in tops and not path.endswith(".yaml")}
    assert [path for path in sorted(ours) if not is_value(path)] == []


@each_page
def test_commands_in_code_have_flags_that_there_are(page: str) -> None:
    for block in blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.search(r"\binferd (serve|infer|models|bench|build)\b(.*)", line)
            if found:
                assert set(re.findall(r"(?<!\S)\[?(--[a-z-]+)", found[2])) <= flags(), line
