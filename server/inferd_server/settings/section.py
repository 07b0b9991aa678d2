"""What the sections of the settings have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Port = Annotated[int, Field(ge=0, le=65535)]
Rows = Annotated[int, Field(ge=1, le=2**31 - 1)]
# More memory than any machine has.
Bytes = Annotated[int, Field(ge=1024, le=2**50)]
# A day is more than anyone waits, and threads wait for finite times only.
Seconds = Annotated[float, Field(ge=0, le=86_400)]


class Section(BaseModel):
    """Base of the sections: unknown names and impossible values are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse yes and no where a number is meant, which pydantic takes for 1 and 0."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and kind in (int, float):
            raise ValueError("a number was expected")
        return value
