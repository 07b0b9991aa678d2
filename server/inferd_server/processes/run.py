"""`inferd serve` with several processes: fronts and a worker, or replicas."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from inferd_engines.devices import Device, DeviceProblem, chosen, found

from inferd_server.errors import StartupError
from inferd_server.models.following import FollowerThread
from inferd_server.monitoring.logs import LogControl
from inferd_server.processes.policy import Arrangement, ServerPlan, wants_gpu
from inferd_server.processes.spawn import MODULE, spawn
from inferd_server.processes.supervisor import Supervisor
from inferd_server.service_manager import taken_from
from inferd_server.settings.model import ALL, Settings
from inferd_server.signals import StopSignals

log = logging.getLogger(__name__)
Find = Callable[[Mapping[str, str]], Sequence[Device]]


def serve_processes(
    settings: Settings,
    logs: LogControl,
    arrangement: Arrangement,
    module: str = MODULE,
    find: Find = found,
    store: FollowerThread | None = None,
) -> int:
    """Start every process, wait for a signal, drain; return the exit code.

    Args:
        settings: checked.
        logs: started.
        arrangement: which processes.
        module: that the processes run.
        find: returns the GPUs of this host.
        store: to follow, whose releases are laid out; None: there is none.

    Raises:
        StartupError: the server cannot start.
    """
    manager = taken_from(os.environ)
    signals = StopSignals()
    signals.install()
    start = partial(spawn, module=module)
    plan = ServerPlan(
        arrangement.fronts, arrangement.replicas, devices_for(settings, arrangement, find)
    )
    gauges = dict if store is None else store.follower.gauges
    supervisor = Supervisor(settings, logs, plan, signals.wake, start, manager.ready, gauges)
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


def devices_for(settings: Settings, arrangement: Arrangement, find: Find) -> Sequence[Device]:
    """Return the GPUs that each get a worker; none: one worker takes what it finds, as ever.

    Raises:
        StartupError: a GPU that was named is not there.
    """
    engine = settings.engine
    if not (arrangement.fronts and wants_gpu(engine)):
        return ()
    everything = engine.gpus == (ALL,)
    try:
        devices = chosen(engine.gpus, find(os.environ))
    except DeviceProblem as problem:
        if not everything:
            raise StartupError(f"gpus: {problem}") from problem
        # Which engine serves instead, each model tells.
        log.info("no GPU was found", extra={"why": str(problem)})
        return ()
    return () if everything and len(devices) == 1 else devices
