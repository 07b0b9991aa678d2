"""Puts the parts that take labels together as the settings say."""

from __future__ import annotations

import time
from collections.abc import Callable

from inferd_server.cache.redis import connector
from inferd_server.feedback.intake import FeedbackIntake
from inferd_server.feedback.memory import LocalMemory, RedisMemory
from inferd_server.feedback.tokens import TokenSigner
from inferd_server.models.entries import Models
from inferd_server.monitoring.metrics import Metrics
from inferd_server.settings.feedback import FeedbackSettings
from inferd_server.settings.model import CacheSettings


def make_intake(
    settings: FeedbackSettings,
    cache: CacheSettings,
    signer: TokenSigner,
    models: Models,
    metrics: Metrics,
    clock: Callable[[], float],
) -> FeedbackIntake:
    """Return what takes labels, and remembers tokens in the cache's Redis where there is one."""
    local = LocalMemory()
    patience = cache.cache_redis_timeout_ms / 1000
    connect = connector(cache.cache_redis_url, cache.cache_redis_password_file, patience)
    memory = (
        RedisMemory(connect, settings.feedback_max_age_s, clock, local)
        if cache.cache_redis_url
        else local
    )
    return FeedbackIntake(settings, signer, models, metrics, memory, clock, time.time)
