"""model.yaml: the little that a model file cannot say of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from inferd_server.errors import SettingsError
from inferd_server.sequences.controls import ControlKind
from inferd_server.settings.monitoring import RecordingConfig, Share
from inferd_server.settings.reading import clauses_of, read_mapping, validated
from inferd_server.settings.section import Delay

MOST = 2**31 - 1
Gpus: TypeAlias = Literal["all"] | Sequence[int | str] | None
"""GPUs of a server, by index or UUID."""
ImageFormat: TypeAlias = Literal["NCHW", "NHWC"]
NonNegative = Annotated[int, Field(ge=0, le=MOST)]
Positive = Annotated[int, Field(ge=1, le=MOST)]
Latest = Annotated[str, Field(pattern=r"^latest:[1-9][0-9]{0,3}$")]
"""The latest N versions."""
Uuid = Annotated[str, Field(pattern=r"^(GPU|MIG)-[0-9a-fA-F/-]+$")]
"""Of a GPU or a slice of one; the first digits are enough."""
WarmUpFile = Annotated[str, Field(pattern=r"^[^/]+\.npz$")]
"""Name of a file beside model.yaml, with an array for each input."""
EXTENSIONS = "onnxruntime_extensions"
"""A package with operators for text, images and sound."""
MEANT = {
    "warm_up": "Input should be a list of batch sizes from 1, or the name of an .npz file beside "
    "model.yaml",
    "preferred_batch_size": "Input should be a number of rows from 1, or a list of them",
    "gpus": "Input should be all, or a list of indexes and UUIDs of this server's GPUs",
    "versions": "Input should be latest, latest:N, all, or a list of version numbers",
}
"""What is said of settings that may be of several types."""


class ResponseCacheConfig(BaseModel):
    """How long and how many answers of a model are kept for equal requests."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    ttl_s: Annotated[float, Field(gt=0, le=31_536_000)] = 60.0
    """Seconds that an answer may be used."""
    max_bytes: Annotated[int, Field(ge=1, le=2**50)] | None = None
    """Of the answers kept in each process; None: as many as the server keeps in all."""


class FeedbackConfig(BaseModel):
    """What of an answer is a prediction, whose truth callers may tell later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    output: str | None = None
    """With the classes; None: the only output with labels, or of numbers, or of floats."""
    tokens: Literal["on_request", "always"] = "on_request"
    """Which answers carry a prediction token."""
    threshold: Annotated[float, Field(allow_inf_nan=False)] = 0.5
    """Of an output with one float for a row: the score from which it means class 1."""


class QueuePolicyConfig(BaseModel):
    """What becomes of requests that are not answered for a while; the names are Triton's."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    default_timeout_ms: Annotated[float, Field(gt=0, le=86_400_000)] | None = None
    """From a request's arrival, for those that name no `timeout`; None: without an end."""
    timeout_action: Literal["refuse", "delay"] = "refuse"
    """Answer it with an error, or let it wait behind all others."""
    allow_timeout_override: bool = True
    """Requests may name a shorter `timeout`; false: what they name is passed over."""

    def timeout(self, asked: float | None) -> float | None:
        """Return the seconds that a request has, which asks for so many; None: no end."""
        default = self.default_timeout_ms and self.default_timeout_ms / 1000
        if asked is None or not self.allow_timeout_override:
            return default
        return asked if default is None else min(asked, default)


class StateConfig(BaseModel):
    """An output that is an input of the sequence's next request."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    input: str
    output: str


class ControlConfig(BaseModel):
    """An input that the server fills with a request's place in its sequence."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    kind: ControlKind
    input: str
    false_true: Annotated[Sequence[float], Field(min_length=2, max_length=2)] = (0, 1)
    """What stands for no and for yes."""


class SequenceConfig(BaseModel):
    """How a model's requests build on each other."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    states: Sequence[StateConfig] = ()
    """What is kept between the requests of a sequence."""
    controls: Sequence[ControlConfig] = ()
    """Inputs that tell the model where in its sequence a request is."""
    idle_s: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """Seconds of silence after which a sequence is forgotten."""
    max_sequences: Positive = 1024
    """Sequences at a time."""

    @model_validator(mode="after")
    def _once(self) -> Self:
        """Refuse an input or a control that is there twice."""
        inputs = [*(pair.input for pair in self.states), *(item.input for item in self.controls)]
        kinds = [str(control.kind) for control in self.controls]
        for what, names in (("input", inputs), ("control", kinds)):
            if twice := [name for name in names if names.count(name) > 1]:
                raise PydanticCustomError("twice", f"{what} {twice[0]!r} is named twice")
        return self


class DriftConfig(BaseModel):
    """How requests and answers of a model are compared with a reference."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    watch: bool = True
    """False: not at all."""
    learn_rows: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """Rows that the reference is learned from where the version brings none; None: the server's
    default; 0: none is learned."""
    logits: Sequence[str] = Field(default_factory=list)
    """Outputs whose softmax are probabilities of classes."""
    embedding: str = ""
    """An output that is compared as a vector; "": none."""


class ModelConfig(BaseModel):
    """The settings of one model; None means the server's default."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    max_batch_size: Annotated[int, Field(ge=0, le=2**20)] | None = None
    """Rows in one batch; 0: the first dimension is not a batch."""
    preferred_batch_size: Positive | Annotated[Sequence[Positive], Field(min_length=1)] | None = (
        None
    )
    """Rows that requests are put together to, of several the most; None: found out."""
    max_queue_delay_ms: Delay | None = None
    """How long the oldest request may wait for company."""
    max_queue_rows: Positive | None = None
    """Rows that may wait or run at a time."""
    max_queue_wait_ms: Delay | None = None
    """A request that would wait longer is refused; 0: none is."""
    priority_levels: Annotated[int, Field(ge=1, le=16)] = 1
    """Priorities that requests may name; 1 is the highest."""
    default_priority: Positive | None = None
    """Of requests that name none; None: the middle one."""
    priority_head_start_ms: Delay = 100.0
    """By how much a request goes before one of the next lower priority that came as early."""
    priority_queue_rows: Mapping[Positive, Positive] = Field(default_factory=dict)
    """Rows that may wait or run at a time, by priority."""
    queue_policy: QueuePolicyConfig = QueuePolicyConfig()
    """What becomes of requests that are not answered for a while."""
    priority_queue_policy: Mapping[Positive, QueuePolicyConfig] = Field(default_factory=dict)
    """The same by priority, in place of `queue_policy`."""
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Share of the engines, beside other models, where `concurrent_runs` bounds them."""
    sequence: SequenceConfig | None = None
    """For a model whose requests build on each other."""
    instances: Annotated[int, Field(ge=1, le=256)] = 1
    """Engines of this model, each with a thread."""
    gpus: Literal["all"] | Annotated[Sequence[NonNegative | Uuid], Field(min_length=1)] | None = (
        None
    )
    """GPUs that have a copy of this model, where the server uses several; None: it chooses one."""
    warm_up: WarmUpFile | Sequence[Positive] | None = None
    """Batch sizes to run once before serving ([] for none), or a file of inputs to run."""
    labels: Mapping[str, Sequence[str]] = Field(default_factory=dict)
    """Names of the classes, by output."""
    format: Mapping[str, ImageFormat] = Field(default_factory=dict)
    """What the dimensions of images mean, by input; clients ask for it."""
    versions: (
        Literal["latest", "all"] | Latest | Annotated[Sequence[Positive], Field(min_length=1)]
    ) = "latest"
    """Which versions to serve: the latest, or so many of them, all, or those named."""
    engine_options: Mapping[str, str] = Field(default_factory=dict)
    """Passed to the engine as they are."""
    custom_ops: Sequence[str] = Field(default_factory=list)
    """Where the engine finds operators that it lacks: packages, or files of the model's folder."""
    response_cache: ResponseCacheConfig | None = None
    """Keep answers, and let equal requests in flight share one run; None: do not."""
    feedback: FeedbackConfig | None = None
    """What of an answer is a prediction; None: what is plain, and tokens for those who ask."""
    sample_share: Share | None = None
    """Part of the requests that are looked at beside their way; None: the server's."""
    recording: RecordingConfig = RecordingConfig()
    """What of those is recorded, where the server records."""
    drift: DriftConfig = DriftConfig()
    """How requests are compared with a reference."""

    @property
    def preferred_rows(self) -> int | None:
        """Rows that requests are put together to; None: to be found out."""
        asked = self.preferred_batch_size
        return asked if asked is None or isinstance(asked, int) else max(asked)

    @property
    def usual_priority(self) -> int:
        """The priority of requests that name none."""
        return self.default_priority or (self.priority_levels + 1) // 2

    def policy_of(self, priority: int) -> QueuePolicyConfig:
        """Return what becomes of requests of a priority that are not answered for a while."""
        return self.priority_queue_policy.get(priority, self.queue_policy)

    @property
    def delays(self) -> bool:
        """True if requests may have to wait behind all others."""
        policies = (self.queue_policy, *self.priority_queue_policy.values())
        return any(policy.timeout_action == "delay" for policy in policies)

    @model_validator(mode="after")
    def _priorities(self) -> Self:
        """Refuse priorities that there are not."""
        levels = self.priority_levels
        if (self.default_priority or 1) > levels:
            text = f"default_priority is {self.default_priority}, and priority_levels {levels}"
            raise PydanticCustomError("priorities", text)
        for name in ("priority_queue_rows", "priority_queue_policy"):
            if strange := [level for level in getattr(self, name) if level > levels]:
                text = f"{name} names {strange[0]}, and priority_levels is {levels}"
                raise PydanticCustomError("priorities", text)
        return self

    @model_validator(mode="after")
    def _sequences(self) -> Self:
        """Refuse what would take the requests of a sequence out of their order."""
        if self.sequence is not None and (self.priority_levels > 1 or self.delays):
            raise PydanticCustomError(
                "sequence", "a model with sequences has one priority, and delays no request"
            )
        if self.sequence is not None and (self.gpus == "all" or len(self.gpus or ()) > 1):
            raise PydanticCustomError("sequence", "a model with sequences is on one GPU")
        return self

    @model_validator(mode="after")
    def _tokens(self) -> Self:
        """Refuse tokens in answers that are kept: each names one answer."""
        if self.always_token and self.response_cache is not None:
            text = "answers that always carry a token cannot be kept: response_cache, or tokens"
            raise PydanticCustomError("feedback", text)
        return self

    @property
    def always_token(self) -> bool:
        """True if every answer carries a prediction token."""
        return self.feedback is not None and self.feedback.tokens == "always"

    @field_validator(*MEANT, mode="wrap")
    @classmethod
    def _unions(cls, value: Any, check: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        """Say what is meant; pydantic names the inner types of a union."""
        try:
            return check(value)
        except ValidationError as error:
            name = str(info.field_name)
            raise PydanticCustomError(name, MEANT[name]) from error

    @field_validator("custom_ops")
    @classmethod
    def _custom_ops(cls, names: Sequence[str]) -> Sequence[str]:
        """Refuse what is neither a package nor a file of the model's folder."""
        for name in names:
            if not is_library(name) and name.replace("-", "_") != EXTENSIONS:
                text = f"{name!r} is neither {EXTENSIONS} nor a file such as ops.so in this folder"
                raise PydanticCustomError("custom_ops", text)
        return names


def latest_of(policy: str) -> int:
    """Return how many of the latest versions a policy names: 2 for "latest:2"."""
    return int(policy.partition(":")[2] or 1)


def is_library(name: str) -> bool:
    """True for the name of a shared library in the model's folder, or below it."""
    path = PurePosixPath(name)
    return path.suffix == ".so" and not path.is_absolute() and ".." not in path.parts


def read_model_config(path: Path) -> ModelConfig:
    """Read a model.yaml; a file that does not exist is an empty one.

    Raises:
        SettingsError: it cannot be read, or says something unknown or impossible.
    """
    # A link that leads nowhere is a mistake, not an empty file.
    if not path.exists() and not path.is_symlink():
        return ModelConfig()
    return validated(ModelConfig, read_mapping(path), str(path))


def engine_options_of(path: Path) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """Return what a model.yaml asks of the engine: its options, and libraries of operators.

    Raises:
        SettingsError: it cannot be read, or says something unknown or impossible.
    """
    config = read_model_config(path)
    return config.engine_options, tuple(config.custom_ops)


def parse_model_config(text: str) -> ModelConfig:
    """Read JSON with the names of model.yaml.

    Raises:
        SettingsError: it is none, or says something unknown or impossible.
    """
    try:
        return ModelConfig.model_validate_json(text)
    except ValidationError as error:
        raise SettingsError(f"config: {clauses_of(error, ModelConfig)}") from error
