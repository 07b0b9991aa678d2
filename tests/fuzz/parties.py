"""Who is at the ends of a link while it is fuzzed: models, and callers who wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from inferd.tensors import Array
from inferd_engines.engine import RowSpec
from inferd_server.errors import InferdError
from inferd_server.monitoring.phases import Phases

FLOAT, TEXT = np.dtype(np.float32), np.dtype(np.object_)


@dataclass
class Model:
    """A model of the worker, and how the front knows it."""

    number: int
    dtype: np.dtype
    width: int
    closed: bool = False
    batched: bool = True
    name: str = "m"
    version: int = 1

    @property
    def specs(self) -> list[RowSpec]:
        return [(self.dtype, (self.width,))]

    @property
    def outputs(self) -> Sequence[tuple[str, np.dtype]]:
        return [("OUTPUT0", self.dtype)]


MODELS = [Model(0, FLOAT, 4), Model(1, TEXT, 2), Model(2, FLOAT, 100)]


@dataclass
class Caller:
    """Who waits for an answer."""

    expected: Array
    outputs: list[Array] = field(default_factory=list)
    errors: list[InferdError] = field(default_factory=list)

    def finish(self, outputs: Mapping[str, Array], phases: Phases) -> None:
        self.outputs.append(outputs["OUTPUT0"].copy())

    def fail(self, error: InferdError) -> None:
        self.errors.append(error)

    @property
    def answers(self) -> int:
        return len(self.outputs) + len(self.errors)
