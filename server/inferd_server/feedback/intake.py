"""True labels for predictions: judged one by one, and counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from inferd_server.errors import InvalidInput, ModelNotReady, NotFound, ResourceExhausted
from inferd_server.feedback.memory import TokenMemory
from inferd_server.feedback.tokens import (
    DIGEST,
    LONGEST,
    ForgedToken,
    Prediction,
    SignedPrediction,
    TokenSigner,
    short_digest,
)
from inferd_server.models.entries import Models
from inferd_server.models.predictions import class_count, predicting_output
from inferd_server.models.version import Handle
from inferd_server.monitoring.accuracy import Labelled, LabelWindow
from inferd_server.monitoring.metrics import Metrics
from inferd_server.security.limits import Bucket, take
from inferd_server.settings.feedback import FeedbackSettings

TrueLabel: TypeAlias = int | str | None
"""Index or name of a class; None: nothing is known of the row."""
MOST_CLASSES = 100
"""Classes that have metrics of their own, by their index; the others share one."""
OTHER = "other"


class Refusal(StrEnum):
    """Why a token is refused."""

    FORGED = "FORGED"
    LATE = "LATE"
    DOUBLED = "DOUBLED"
    UNKNOWN_MODEL = "UNKNOWN_MODEL"
    MODEL_NOT_READY = "MODEL_NOT_READY"
    BAD_LABEL = "BAD_LABEL"


class RefusedToken(Exception):
    """A token that does not count; its text is a sentence for the caller."""

    def __init__(self, reason: Refusal, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Truth:
    """A token, and what was true of its rows."""

    token: str
    labels: Sequence[TrueLabel]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a token."""

    rows: int = 0
    """That count."""
    reason: str = ""
    """Why it is refused; empty: it is not."""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """A token that counts if it is new."""

    signed: SignedPrediction
    rows: Sequence[Labelled]


class FeedbackIntake:
    """Takes labels. One thread at a time."""

    def __init__(
        self,
        settings: FeedbackSettings,
        signer: TokenSigner,
        models: Models,
        metrics: Metrics,
        memory: TokenMemory,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """Begin without labels.

        Args:
            settings: checked.
            signer: reads tokens.
            models: that serve.
            metrics: where labels are counted.
            memory: knows the tokens that were used.
            clock: monotonic seconds.
            wall: seconds since the epoch.
        """
        self._settings = settings
        self._signer = signer
        self._models = models
        self._metrics = metrics
        self._memory = memory
        self._clock = clock
        self._wall = wall
        self._window = LabelWindow(settings.feedback_window_s, settings.feedback_window_labels)
        self._bucket = Bucket(settings.feedback_labels_per_second, clock())

    def take(self, truths: Sequence[Truth]) -> list[Outcome]:
        """Count labels, and say of each token what became of it.

        Raises:
            ResourceExhausted: more labels come than may.
        """
        self._admit(sum(max(1, len(truth.labels)) for truth in truths))
        judged = [self._judge(truth) for truth in truths]
        new = iter(self._memory.first([j.signed.ident for j in judged if isinstance(j, Judged)]))
        return [
            self._count(each, next(new)) if isinstance(each, Judged) else self._refuse(each)
            for each in judged
        ]

    def close(self) -> None:
        """Let the memory of tokens go; nothing is taken any more."""
        self._memory.close()

    def _admit(self, labels: int) -> None:
        rate = self._settings.feedback_labels_per_second
        if not rate:
            return
        self._bucket, wait = take(self._bucket, rate, self._clock(), labels)
        if wait:
            raise ResourceExhausted(
                f"more than {rate:g} labels come in a second (feedback_labels_per_second)",
                reason="FEEDBACK_RATE",
                facts={"limit": f"{rate:g}"},
                retry_after=wait,
            )

    def _judge(self, truth: Truth) -> Judged | RefusedToken:
        try:
            signed = self._read(truth.token)
            handle = self._handle_of(signed.prediction)
            return Judged(signed, labelled_rows(signed.prediction, handle, truth.labels))
        except RefusedToken as refused:
            return refused
        except InvalidInput as error:
            # Its model.yaml names another output by now.
            return RefusedToken(Refusal.UNKNOWN_MODEL, str(error))

    def _read(self, token: str) -> SignedPrediction:
        if len(token) > LONGEST:
            raise RefusedToken(Refusal.FORGED, "it is longer than any prediction token")
        try:
            signed = self._signer.read(token)
        except ForgedToken as error:
            raise RefusedToken(Refusal.FORGED, str(error)) from None
        age = self._wall() - signed.made
        if age > self._settings.feedback_max_age_s:
            most = self._settings.feedback_max_age_s
            text = f"the answer is {age:.0f} s old; {most:g} s are allowed (feedback_max_age_s)"
            raise RefusedToken(Refusal.LATE, text)
        return signed

    def _handle_of(self, said: Prediction) -> Handle:
        try:
            handle = self._models.resolve(said.model, str(said.version))
        except NotFound:
            # Its own words would name other models, to whom may not read.
            text = f"version {said.version} of model {said.model!r} is not here"
            raise RefusedToken(Refusal.UNKNOWN_MODEL, text) from None
        except ModelNotReady as error:
            raise RefusedToken(Refusal.MODEL_NOT_READY, f"{error}; send it again later") from None
        if not same_files(said.digest, short_digest(handle.digest)):
            text = f"version {said.version} of model {said.model!r} has other files by now"
            raise RefusedToken(Refusal.UNKNOWN_MODEL, text)
        return handle

    def _count(self, judged: Judged, new: bool) -> Outcome:
        if not new:
            text = "labels came for this token before"
            return self._refuse(RefusedToken(Refusal.DOUBLED, text))
        said = judged.signed.prediction
        window = self._metrics.accuracy_of(said.model, said.version, self._window)
        window.add(judged.rows, self._wall())
        return Outcome(len(judged.rows))

    def _refuse(self, refused: RefusedToken) -> Outcome:
        self._metrics.refused_feedback(refused.reason)
        return Outcome(0, refused.reason, str(refused))


def same_files(first: bytes, second: bytes) -> bool:
    """True unless two digests are known and differ."""
    return first == second or DIGEST * b"\0" in (first, second)


def labelled_rows(said: Prediction, handle: Handle, labels: Sequence[TrueLabel]) -> list[Labelled]:
    """Return the rows of which something is known.

    Args:
        said: the prediction.
        handle: of its model.
        labels: what was true, of each row.

    Raises:
        RefusedToken: they are not one for each row, or one is none of the model's.
    """
    if len(labels) != len(said.classes):
        text = f"{len(labels)} labels came for the {len(said.classes)} rows of the answer"
        raise RefusedToken(Refusal.BAD_LABEL, text)
    output = predicting_output(handle.signature, handle.config)
    names = class_names(handle.config.labels.get(output.name, ()))
    most = class_count(output, batched=handle.batched)
    indices = {name: index for index, name in names.items()}
    rows = []
    for label, chosen, sure in zip(labels, said.classes, said.confidences, strict=True):
        if label is not None:
            actual, guess = index_of(label, indices, most), int(chosen)
            told = metric_name(guess, names), metric_name(actual, names)
            rows.append(Labelled(*told, actual == guess, float(sure)))
    return rows


def class_names(labels: Sequence[str]) -> Mapping[int, str]:
    """Return the classes that have names, by index; none where one name is of several."""
    named = {index: name for index, name in enumerate(labels) if name}
    return named if len(set(named.values())) == len(named) else {}


def index_of(label: int | str, indices: Mapping[str, int], most: int | None) -> int:
    """Return the index of a true class.

    Args:
        label: its index or name.
        indices: by name.
        most: classes that there are; None if that is not known.

    Raises:
        RefusedToken: there is no such class.
    """
    if isinstance(label, str):
        if label in indices:
            return indices[label]
        known = ", ".join(sorted(indices)[:20])
        cure = f"known are {known}" if known else "model.yaml has no labels: send its index"
        raise RefusedToken(Refusal.BAD_LABEL, f"no class is called {label!r}; {cure}")
    if most is not None and not 0 <= label < most:
        text = f"there is no class {label}: the model tells {most} apart, from 0"
        raise RefusedToken(Refusal.BAD_LABEL, text)
    return label


def metric_name(index: int, names: Mapping[int, str]) -> str:
    """Return what metrics call a class."""
    return names.get(index, str(index)) if 0 <= index < MOST_CLASSES else OTHER
