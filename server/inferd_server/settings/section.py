"""The base of the sections of the settings, and the types that they share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator


def no_tiny(seconds: float) -> float:
    """Refuse what can only be a mistake, such as seconds that were meant as something else."""
    if 0 < seconds < SHORTEST_S:
        raise ValueError("a time below a millisecond cannot be meant")
    return seconds


Port = Annotated[int, Field(ge=0, le=65535)]
SHORTEST_S = 0.001
# A day is more than anyone waits, and threads wait for finite times only.
Seconds = Annotated[float, Field(ge=0, le=86_400), AfterValidator(no_tiny)]
# Milliseconds; more than a minute cannot be meant, and threads wait for finite times only.
Delay = Annotated[float, Field(ge=0, le=60_000)]
Bytes = Annotated[int, Field(ge=1024, le=2**50)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]


class Section(BaseModel):
    """Base of the sections: unknown names and impossible values are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _meant(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what pydantic takes: yes and no for 1 and 0, no path for the current folder."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and kind in (int, float):
            raise ValueError("a number was expected")
        if kind is Path and value == "":
            raise ValueError("a path was expected")
        if any("\0" in part for part in _texts(value)):
            raise ValueError("no text of a setting can hold a NUL character")
        return value


def _texts(value: Any) -> list[str]:
    parts = value if isinstance(value, list | tuple) else (value,)
    return [part for part in parts if isinstance(part, str)]
