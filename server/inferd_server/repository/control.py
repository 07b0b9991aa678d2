"""The permission to load and unload models."""

from __future__ import annotations

from inferd_server.address import is_loopback


def control_allowed(control: str, host: str, says_who: bool = False) -> bool:
    """Decide whether callers may load and unload models.

    Args:
        control: the setting model_control.
        host: listened on.
        says_who: whether others come this far only if the operator said that they may.
    """
    return control == "on" or (control == "auto" and (says_who or is_loopback(host)))
