from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "proto"
STUBS = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py")


def stubs_in(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text()
        for pattern in STUBS
        for path in root.rglob(pattern)
    }


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what `make proto` would write, by path."""
    out = tmp_path_factory.mktemp("stubs")
    subprocess.run([sys.executable, ROOT / "scripts/generate_stubs.py", PROTO, out], check=True)
    return stubs_in(out)


def test_committed_stubs_are_those_of_the_contract(generated: dict[str, str]) -> None:
    stale = {path for path, text in stubs_in(PROTO).items() if generated.get(path) != text}
    assert not stale, "run `make proto`"


def test_every_stub_is_committed(generated: dict[str, str]) -> None:
    assert generated.keys() == stubs_in(PROTO).keys()
