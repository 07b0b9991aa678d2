"""`inferd serve` with several processes: fronts and a worker, or replicas."""

from __future__ import annotations

import logging
import os
from functools import partial

from inferd_server.models.following import FollowerThread
from inferd_server.monitoring.logs import LogControl
from inferd_server.processes.policy import Arrangement
from inferd_server.processes.spawn import MODULE, spawn
from inferd_server.processes.supervisor import Supervisor
from inferd_server.service_manager import taken_from
from inferd_server.settings.model import Settings
from inferd_server.signals import StopSignals

log = logging.getLogger(__name__)


def serve_processes(
    settings: Settings,
    logs: LogControl,
    arrangement: Arrangement,
    module: str = MODULE,
    store: FollowerThread | None = None,
) -> int:
    """Start every process, wait for a signal, drain; return the exit code.

    Args:
        settings: checked.
        logs: started.
        arrangement: which processes.
        module: that the processes run.
        store: to follow, whose releases are laid out; None: there is none.

    Raises:
        StartupError: the server cannot start.
    """
    manager = taken_from(os.environ)
    signals = StopSignals()
    signals.install()
    start = partial(spawn, module=module)
    supervisor = Supervisor(
        settings,
        logs,
        arrangement.fronts,
        signals.wake,
        start,
        manager.ready,
        arrangement.replicas,
        dict if store is None else store.follower.gauges,
    )
    try:
        supervisor.start()
        if store is not None:
            store.start(supervisor.models)
        signals.wait()
        manager.stopping()
        if not supervisor.failure:
            supervisor.drain(signals.next())
    finally:
        supervisor.end()
    if supervisor.failure:
        log.error("gave up", extra={"reason": supervisor.failure})
        return 1
    log.info("stopped")
    return 0
