"""How a load becomes one of several processes that hold the same models."""

from __future__ import annotations

from typing import Protocol


class Agreement(Protocol):
    """What the processes of one load wait for; both methods block."""

    def opened(self) -> None:
        """Wait until every process has opened the model.

        Raises:
            InferdError: another one could not; this one is to close what it opened.
        """

    def taking(self) -> None:
        """Wait until every process takes requests for the model."""
