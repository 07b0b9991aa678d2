"""The digest of a model's files: what the answers of a version depend on."""

from __future__ import annotations

import hashlib
import logging

from inferd_engines.engine import EngineError
from inferd_engines.model_files import ModelFiles

from inferd_server.repository.config import ModelConfig

log = logging.getLogger(__name__)


def digest_of(files: ModelFiles, config: ModelConfig) -> str:
    """Return the digest of what an engine was opened from; "" if no answers are kept, or can be.

    Args:
        files: as the engine read them; the model file is read if the engine read none.
        config: its engine options and custom operators count, too.
    """
    if config.response_cache is None:
        return ""
    try:
        files.content()
    except EngineError as error:
        where = {"folder": str(files.model.parent), "why": str(error)}
        log.warning("answers are not kept", extra=where)
        return ""
    given = repr((sorted(config.engine_options.items()), list(config.custom_ops)))
    return hashlib.sha256((files.digest() + given).encode()).hexdigest()
