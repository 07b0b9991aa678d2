"""What holds for every test."""

from __future__ import annotations

import gc

from hypothesis import HealthCheck, settings

# How long an example takes says more of the machine than of the code.
settings.register_profile("inferd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("inferd")


def pytest_collection_finish() -> None:
    """Leave what the tests are made of out of garbage collection, which would look at it often."""
    gc.collect()
    gc.freeze()
