"""Identities of the tests of this folder, and the file that says them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def entry(name: str, *permissions: str, **more: Any) -> dict[str, Any]:
    """One identity, recognised by the token `NAME-token` unless it says otherwise."""
    recognised = {} if "certificates" in more else {"tokens_sha256": [digest(f"{name}-token")]}
    return {"name": name, "permissions": list(permissions), **recognised, **more}


def written(path: Path, *entries: dict[str, Any]) -> Path:
    """Write a file of identities."""
    path.write_text(yaml.safe_dump({"identities": list(entries)}), encoding="utf-8")
    return path
