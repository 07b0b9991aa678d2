"""The digest of a model's files: what the answers of a version depend on."""

from __future__ import annotations

import hashlib
import logging

from inferd_engines.engine import EngineError
from inferd_engines.model_files import ModelFiles

from inferd_server.models.config import ModelConfig

log = logging.getLogger(__name__)


def answers_digest(files: ModelFiles, config: ModelConfig) -> str:
    """Return the digest that answers and predictions are known by; "" if it is of no use.

    Args:
        files: as the engine read them; the model file is read if the engine read none.
        config: its engine options and custom operators count, too.
    """
    if config.response_cache is None and config.feedback is None:
        return ""
    try:
        return content_digest(files, config)
    except EngineError as error:
        where = {"folder": str(files.model.parent), "why": str(error)}
        log.warning("answers are not kept", extra=where)
        return ""


def content_digest(files: ModelFiles, config: ModelConfig) -> str:
    """Return the digest of what an engine was opened from, and of the options it was given.

    Raises:
        EngineError: the files cannot be read, or changed meanwhile.
    """
    files.content()
    given = repr((sorted(config.engine_options.items()), list(config.custom_ops)))
    return hashlib.sha256((files.digest() + given).encode()).hexdigest()
