"""Imports go one way: stubs, engines and client know nothing of the server."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "inferd": ROOT / "proto/inferd",
    "inferd_client": ROOT / "client/inferd_client",
    "inferd_engines": ROOT / "engines/inferd_engines",
    "inferd_seal": ROOT / "seal/inferd_seal",
    "inferd_store": ROOT / "store/inferd_store",
    "inferd_server": ROOT / "server/inferd_server",
}
MAY_IMPORT = {
    "inferd": set(),
    "inferd_client": {"inferd", "inferd_seal", "inferd_store"},
    "inferd_engines": set(),
    "inferd_seal": {"inferd_engines"},
    "inferd_store": {"inferd", "inferd_engines", "inferd_seal"},
    "inferd_server": {"inferd", "inferd_engines", "inferd_seal", "inferd_store"},
}
RUNTIMES = {"onnxruntime", "tensorrt", "tensorrt_rtx", "pycuda"}
# The rooms of the server: each may import those before it.
ROOMS = (
    "settings", "transport", "monitoring", "security", "sequences", "batching", "models", "cache",
    "feedback", "inference", "rpc", "processes",
)  # fmt: skip
# What puts the rooms together; no room imports it.
COMMANDS = {"command", "one_process", "server", "explain", "probe", "__main__"}
# Where the server may know grpc; the probe is a client of its own.
GRPC_PLACES = {"transport", "probe.py"}


def sources(package: str) -> list[Path]:
    files = sorted(PACKAGES[package].rglob("*.py"))
    return [path for path in files if not path.name.endswith(("_pb2.py", "_pb2_grpc.py"))]


def imports(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def top_level_imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    plain = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return imports(ast.Module(plain, []))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_lies_below_it(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package}
    found = sources(package)
    assert found
    for path in found:
        ours = imports(ast.parse(path.read_text())) & set(PACKAGES)
        assert ours <= allowed, f"{path.relative_to(ROOT)} imports {ours - allowed}"


def modules(tree: ast.AST) -> set[str]:
    """Return what of the server is imported, as the first part behind the package."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "inferd_server":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            package, _, rest = node.module.partition(".")
            names |= {rest.partition(".")[0]} if package == "inferd_server" else set()
    return names


def test_the_rooms_of_the_server_are_all_there_is() -> None:
    folders = {path.name for path in PACKAGES["inferd_server"].iterdir() if path.is_dir()}
    assert folders - {"__pycache__", "shipped_models"} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    above = set(ROOMS[ROOMS.index(room) + 1 :]) | COMMANDS
    found = sorted((PACKAGES["inferd_server"] / room).rglob("*.py"))
    assert found
    for path in found:
        wrong = modules(ast.parse(path.read_text())) & above
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_no_two_public_classes_of_the_server_share_a_name() -> None:
    places: dict[str, list[str]] = {}
    for path in sources("inferd_server"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_runtime_is_imported_only_when_an_engine_opens(package: str) -> None:
    for path in sources(package):
        early = top_level_imports(path) & RUNTIMES
        assert not early, f"{path.relative_to(ROOT)} imports {early} when it is imported"


def test_a_store_knows_neither_grpc_nor_a_runtime() -> None:
    for path in sources("inferd_store"):
        found = imports(ast.parse(path.read_text())) & {"grpc", *RUNTIMES}
        assert not found, f"{path.relative_to(ROOT)} imports {found}"


def test_only_the_transport_knows_grpc() -> None:
    for path in sources("inferd_server"):
        place = path.relative_to(PACKAGES["inferd_server"]).parts[0]
        known = "grpc" in imports(ast.parse(path.read_text()))
        assert not known or place in GRPC_PLACES, f"{path.relative_to(ROOT)} imports grpc"


def test_a_supervisor_loads_neither_grpc_nor_an_engine() -> None:
    code = (
        "import sys, inferd_client.cli, inferd_server.command, inferd_server.processes.run; "
        "sys.exit(bool({'grpc', 'onnxruntime'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
