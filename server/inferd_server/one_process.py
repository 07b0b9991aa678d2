"""`inferd serve` in one process."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from contextlib import suppress
from typing import NoReturn

from inferd_engines.standard import Engines, engines_on

from inferd_server.address import is_unix
from inferd_server.batching.fatal import end_process
from inferd_server.batching.inline import InlineLoop
from inferd_server.models.layout import name_of
from inferd_server.monitoring.logs import LogControl
from inferd_server.security.opening import credentials_of
from inferd_server.server import Server
from inferd_server.service_manager import ServiceManager, taken_from
from inferd_server.settings.model import Settings
from inferd_server.signals import StopSignals
from inferd_server.transport.making import COMPLETION_QUEUE, choose_transport, for_probes, make
from inferd_server.transport.options import transport_options

log = logging.getLogger(__name__)


def serve(settings: Settings, logs: LogControl, engines: Engines | None = None) -> int:
    """Start, wait for a signal, drain.

    Args:
        settings: checked.
        logs: started.
        engines: to serve with; None: the standard ones.

    Raises:
        StartupError: the server cannot start.
    """
    manager = taken_from(os.environ)
    signals = StopSignals()
    signals.install()
    wanted = settings.engine
    server = build(settings, logs, engines or engines_on(wanted.plan_store, wanted.gpu_wait))
    port, metrics_port = server.start()
    grpc_port = {} if is_unix(settings.listen.host) else {"grpc_port": port}
    where = {"host": settings.listen.host, **grpc_port, "metrics_port": metrics_port}
    probe = {"probe_port": server.probe_port} if server.probe_port >= 0 else {}
    log.info("listening", extra={**where, **probe})
    # On a thread of its own, so that a signal ends a start that takes long.
    threading.Thread(target=load, args=(server, manager), name="load", daemon=True).start()
    signals.wait()
    manager.stopping()
    ended = server.drain(signals.next())
    log.info("stopped")
    if not ended:
        leave(0)
    return 0


def load(server: Server, manager: ServiceManager) -> None:
    """Load the models, and tell that the start is over, whatever came of it."""
    server.load()
    manager.ready()


def build(settings: Settings, logs: LogControl, engines: Engines) -> Server:
    """Put a server together with the transport of this host."""
    inline = InlineLoop(time.monotonic)
    certificates = credentials_of(settings)
    options = transport_options(settings.listen, credentials=certificates)
    name = choose_transport(settings.listen.transport, options)
    transport = make(name, options, inline)
    takes_turns = name == COMPLETION_QUEUE
    hosted = inline if takes_turns else None
    probe = make(name, for_probes(options)) if settings.security.probe_port >= 0 else None
    gauges = dict if certificates is None else certificates.gauges
    server = Server(
        settings,
        engines.opener,
        transport,
        logs,
        inline=hosted,
        probe=probe,
        certificates=gauges,
        end=end_process,
    )
    folder = settings.repository.model_repository
    engines.when_ended(lambda model: server.repository.reload(name_of(folder, model)))
    return server


def leave(code: int) -> NoReturn:
    """End the process now: Python's own way out aborts while a thread is inside an engine."""
    with suppress(OSError):
        # Full, most likely.
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
