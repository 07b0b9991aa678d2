"""A headless browser of this machine, driven by browser.js."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
MODULES = ROOT / ".tools/node/node_modules"
PATIENCE = 60.0


def missing() -> str:
    """Say what lacks on this machine; "" if nothing does."""
    wanted = {
        "node (Debian: nodejs)": shutil.which("node"),
        "chromium (Debian: chromium)": shutil.which("chromium"),
        "playwright-core (make tools)": (MODULES / "playwright-core").exists(),
    }
    return ", ".join(name for name, there in wanted.items() if not there)


class Browser:
    """One page of a browser."""

    def __init__(self) -> None:
        command = [
            "node",
            str(Path(__file__).with_name("browser.js")),
            str(shutil.which("chromium")),
        ]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "NODE_PATH": str(MODULES)},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.stdout.close()
            self._process.wait()

    def __call__(self, what: str, **about: object) -> Any:
        """Do one thing, and return what came of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, **about}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def text(self, selector: str) -> str:
        """Return the text of an element."""
        found: str = self("evaluate", js=f"document.querySelector({selector!r}).innerText")
        return found
