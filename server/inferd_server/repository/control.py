"""Who may load and unload models."""

from __future__ import annotations

from inferd_server.address import is_loopback


def control_allowed(control: str, host: str) -> bool:
    """Decide whether callers may load and unload models."""
    return control == "on" or (control == "auto" and is_loopback(host))
