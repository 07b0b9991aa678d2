"""inferd feedback and inferd infer --prediction-token beside a real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from inferd_client.cli import main

from tests import models
from tests.server.serving import Running, running


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("models")
    yaml = {"m": "labels: {OUTPUT0: [cat, dog, bird, cow]}\n"}
    models.repository(folder, {"m": models.identity("FP32")}, yaml)
    with running(folder) as server:
        yield server


def token_of(served: Running, capsys: pytest.CaptureFixture[str]) -> str:
    """Return a token for one row of class 1, as the command prints it."""
    flags = [f"--url=127.0.0.1:{served.port}", "--prediction-token"]
    assert main(["infer", "m", "--input", "INPUT0=[[0, 1, 0, 0]]", *flags]) == 0
    return capsys.readouterr().out.rpartition("prediction token: ")[2].strip()


def test_the_command_tells_what_became_of_a_token(
    served: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    url, token = f"--url=127.0.0.1:{served.port}", token_of(served, capsys)
    assert main(["feedback", url, "--json", token, "dog"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": 1, "tokens": 1, "refused": {}}
    assert main(["feedback", url, token, "dog"]) == 1
    told = capsys.readouterr()
    assert "labels came for this token before" in told.err
    assert [line.split() for line in told.out.splitlines()] == [
        ["RESULT", "TOKENS"], ["counted", "0"], ["DOUBLED", "1"],
    ]  # fmt: skip


def test_the_command_reads_a_file(
    served: Running, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lines = [
        {"token": token_of(served, capsys), "label": 1},
        {"token": token_of(served, capsys), "labels": ["dog"]},
        {"token": "forged", "label": None},
    ]
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    url = f"--url=127.0.0.1:{served.port}"
    assert main(["feedback", url, "--json", "--file", str(path)]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told == {"rows": 2, "tokens": 2, "refused": {"FORGED": 1}}
