"""`inferd serve` with processes for fronts and worker."""

from __future__ import annotations

import logging

from inferd_server.monitoring.logs import LogControl
from inferd_server.settings.model import Settings
from inferd_server.signals import StopSignals
from inferd_server.supervisor.supervisor import Supervisor

log = logging.getLogger(__name__)


def serve_split(settings: Settings, logs: LogControl, fronts: int) -> int:
    """Start every process, wait for a signal, drain; return the exit code.

    Raises:
        StartupError: the server cannot start.
    """
    signals = StopSignals()
    signals.install()
    supervisor = Supervisor(settings, logs, fronts, signals.wake)
    try:
        supervisor.start()
        signals.wait()
        if not supervisor.failure:
            supervisor.drain(signals.next())
    finally:
        supervisor.end()
    if supervisor.failure:
        log.error("gave up", extra={"reason": supervisor.failure})
        return 1
    log.info("stopped")
    return 0
