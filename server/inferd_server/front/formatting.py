"""Answers that take long to write are written on a thread of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from inferd.tensors import Array

from inferd_server.errors import MemoryBudgetExceeded
from inferd_server.front.answer import Target
from inferd_server.front.classification import takes_long
from inferd_server.front.outcome import Answer
from inferd_server.front.side_thread import SideThread
from inferd_server.scheduler.job import Phases


class ClassifiedAnswer(Answer):
    """The answer to a request that asks for classes."""

    __slots__ = ("_formatting", "_targets")

    def __init__(
        self, formatting: SideThread, targets: Sequence[Target], *arguments: Any, **named: Any
    ) -> None:
        """Prepare.

        Args:
            formatting: writes what takes long.
            targets: what to send.
            arguments: as of any answer.
            named: the same.
        """
        super().__init__(*arguments, **named)
        self._formatting = formatting
        self._targets = targets

    def finish(self, outputs: Mapping[str, Array], phases: Phases) -> None:
        """Send the outputs, from another thread where that takes long."""
        if not any(
            takes_long(outputs[target.name], target.classes, batched=target.batched)
            for target in self._targets
            if target.classes
        ):
            super().finish(outputs, phases)
            return
        # Copies: the memory of outputs is used again after this.
        kept = {target.name: outputs[target.name].copy() for target in self._targets}
        nbytes = sum(array.nbytes for array in kept.values())
        try:
            self._formatting.submit(nbytes, partial(super().finish, kept, phases))
        except MemoryBudgetExceeded as error:
            self.fail(error)
