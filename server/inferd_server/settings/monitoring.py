"""The settings of samples: which requests are looked at beside their way, and what is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Annotated, Literal, TypeAlias

from inferd.recording import NPZ, PARQUET
from inferd_store.errors import StoreError
from inferd_store.objects import open_objects
from pydantic import BaseModel, ConfigDict, Field, field_validator

from inferd_server.settings.section import Bytes, Seconds, Section

Share = Annotated[float, Field(ge=0, le=1)]
"""Part of all requests."""
Mask: TypeAlias = Literal["drop", "zeros", "hash"]
"""What is recorded in place of a tensor: nothing, zeros, or keyed hashes of its texts."""


class RecordingConfig(BaseModel):
    """What of a model's samples is recorded."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    inputs: bool = True
    """With neither inputs nor outputs, nothing of the model is recorded."""
    outputs: bool = True
    masks: Mapping[str, Mask] = Field(default_factory=dict)
    """What becomes of tensors that nobody may read later, by name."""


class MonitoringSettings(Section):
    """Samples of requests and answers, and where they are recorded."""

    sample_share: Share = Field(
        0.0,
        description="part of each model's requests that are looked at beside their way, such as "
        "0.01; a model.yaml may say otherwise; 0: none",
    )
    sample_max_bytes: Bytes = Field(
        64 * 1024 * 1024,
        description="bytes of samples that each process with callers may hold until they are "
        "looked at; beyond that they are dropped and counted",
    )
    record_to: str = Field(
        "",
        description="folder, s3://BUCKET/PATH, gs:// or az:// where the samples are recorded, for "
        "`inferd replay`; empty: nowhere",
    )
    record_format: Literal["auto", "parquet", "npz"] = Field(
        "auto", description="of the recording; auto: parquet where pyarrow is installed, else npz"
    )
    record_part_bytes: Bytes = Field(
        16 * 1024 * 1024, description="bytes of samples of one model in a file of the recording"
    )
    record_part_s: Annotated[Seconds, Field(gt=0)] = Field(
        60.0, description="seconds after which a file of the recording is written, full or not"
    )
    record_max_bytes: Bytes = Field(
        1024**3,
        description="bytes of the whole recording; beyond that the oldest files are removed",
    )

    @field_validator("record_format")
    @classmethod
    def _format(cls, value: str) -> str:
        """Refuse what nothing here can write."""
        if value == "parquet" and find_spec("pyarrow") is None:
            raise ValueError("this needs the package pyarrow: install inferd[monitoring]")
        return value

    @field_validator("record_to")
    @classmethod
    def _place(cls, value: str) -> str:
        """Refuse an address that nothing can be written to."""
        try:
            if value:
                open_objects(value)
        except StoreError as error:
            raise ValueError(str(error)) from error
        return value

    @property
    def record_suffix(self) -> str:
        """Of the files that are written."""
        found = self.record_format == "auto" and find_spec("pyarrow") is not None
        return PARQUET if found or self.record_format == PARQUET else NPZ
