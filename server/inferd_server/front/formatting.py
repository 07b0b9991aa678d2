"""Answers that take long to write are written on a thread of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from inferd.tensors import Array

from inferd_server.front.answer import Target
from inferd_server.front.classification import takes_long
from inferd_server.front.side_thread import SideThread


class Formatting:
    """Writes what takes long."""

    def __init__(self) -> None:
        self._thread = SideThread("formatting", "outputs wait to be classified")

    def submit(
        self,
        targets: Sequence[Target],
        outputs: Mapping[str, Array],
        write: Callable[[Mapping[str, Array]], None],
    ) -> bool:
        """Have an answer written later; False if that takes too little time.

        Args:
            targets: what is to be sent.
            outputs: arrays of the request's rows, by name; copied, for they are used again.
            write: gets the copies, on the thread.

        Raises:
            MemoryBudgetExceeded: too much is waiting.
        """
        if not any(
            takes_long(outputs[target.name], target.classes, batched=target.batched)
            for target in targets
            if target.classes
        ):
            return False
        kept = {target.name: outputs[target.name].copy() for target in targets}
        self._thread.submit(sum(array.nbytes for array in kept.values()), partial(write, kept))
        return True
