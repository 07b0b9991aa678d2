"""An intake of labels over models of a test's choice, with a clock that it moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from inferd_engines.engine import Signature, Tensor
from inferd_server.errors import ModelNotReady, VersionNotFound
from inferd_server.feedback.intake import FeedbackIntake, Outcome, TrueLabel, Truth
from inferd_server.feedback.memory import LocalMemory, TokenMemory
from inferd_server.feedback.tokens import Prediction, short_digest
from inferd_server.models.config import ModelConfig
from inferd_server.models.entries import ModelEntry
from inferd_server.models.version import Handle, ModelBounds
from inferd_server.monitoring.metrics import Metrics
from inferd_server.settings.feedback import FeedbackSettings

from tests.fakes.clock import FakeClock
from tests.fakes.signer import signer

NOW = 1_000_000.0
DIGEST = "ab" * 32
SCORES = Tensor("scores", np.dtype(np.float32), (None, 3))
LABELS = {"scores": ["cat", "dog", "bird"]}


class Bench:
    """An intake, and what it counts with."""

    def __init__(self, memory: TokenMemory | None = None, **settings: float) -> None:
        self.clock = FakeClock(NOW)
        self.signer = signer(wall=self.clock)
        self.metrics = Metrics(wall=self.clock)
        self.config = ModelConfig(labels=LABELS)
        self.digest = DIGEST
        self.output = SCORES
        self.loading = False
        self.intake = FeedbackIntake(
            FeedbackSettings.model_validate(settings),
            self.signer,
            self,
            self.metrics,
            memory or LocalMemory(),
            self.clock,
            self.clock,
        )

    def resolve(self, name: str, version: str) -> Handle:
        if self.loading:
            raise ModelNotReady(f"model {name!r} is LOADING")
        if (name, version) != ("m", "1"):
            raise VersionNotFound(f"model {name!r} has no version {version!r}")
        unused: Any = None
        handle = Handle(
            name, 1, self.config, Signature((), (self.output,)), ModelBounds(8, 0.0, 8, 8, 8, ()),
            "engine", "", "", unused, unused, unused, unused,
        )  # fmt: skip
        handle.digest = self.digest
        return handle

    def choose(self, name: str, version: str) -> ModelEntry:
        raise NotImplementedError

    def entries(self) -> list[ModelEntry]:
        raise NotImplementedError

    def token(self, *classes: int, model: str = "m", version: int = 1) -> str:
        sure = np.full(len(classes), 0.5)
        digest = short_digest(DIGEST)
        return self.signer.sign(Prediction(model, version, digest, np.array(classes), sure))

    def take(self, token: str, *labels: TrueLabel) -> Outcome:
        (outcome,) = self.intake.take([Truth(token, labels)])
        return outcome

    def reasons(self, *truths: tuple[str, Sequence[TrueLabel]]) -> list[str]:
        return [one.reason for one in self.intake.take([Truth(*truth) for truth in truths])]

    def value(self, name: str, **labels: str) -> float | None:
        about = {"model": "m", "version": "1", **labels}
        return self.metrics.registry.get_sample_value(name, about)

    def refused(self, reason: str) -> float | None:
        name = "inferd_refused_feedback_total"
        return self.metrics.registry.get_sample_value(name, {"reason": reason})
