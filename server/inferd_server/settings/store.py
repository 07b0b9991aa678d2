"""The settings of a store of models."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from inferd_server.settings.section import Seconds, Section

STORE_VERSIONS = re.compile(
    r"labels|latest(:[1-9][0-9]{0,3})?|all|[1-9][0-9]{0,8}|@[A-Za-z_][A-Za-z0-9._-]{0,63}"
)
"""One part of `store_versions`."""


class StoreSettings(Section):
    """A store of models as releases, in place of a repository."""

    model_store: str = Field(
        "",
        description="folder, s3://BUCKET/PATH, gs:// or az:// of a store that `inferd models add` "
        "made: its models serve, and none of model_repository; empty: there is none",
    )
    store_versions: tuple[str, ...] = Field(
        ("labels",),
        description="versions to serve, with commas between: labels (those that any label is at, "
        "and the latest of a model without), latest, latest:N, all, numbers, or @LABEL; the first "
        "label named serves requests without a version",
    )
    store_poll_s: Seconds = Field(
        0.5, description="seconds between two looks at the store for what changed there; 0: never"
    )
    store_keep_warm_s: Seconds = Field(
        300.0, description="seconds for which a version stays loaded that serves no more"
    )
    store_cache: str = Field(
        "auto",
        description="folder for the files of a store that is not on this host; auto: inferd/store "
        "in $XDG_CACHE_HOME or ~/.cache",
    )
    store_backups: tuple[str, ...] = Field(
        (),
        description="folders, s3://, gs:// or az://, with commas between: where callers with the "
        "permission admin may have backups made",
    )

    @field_validator("store_versions")
    @classmethod
    def _versions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse what names no versions."""
        for term in value:
            if not STORE_VERSIONS.fullmatch(term):
                raise ValueError(f"{term!r} is neither labels, latest, latest:N, all, N nor @LABEL")
        if not value:
            raise ValueError("labels, latest, latest:N, all, N or @LABEL was expected")
        return value
