"""`inferd serve` in one process."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NoReturn

from inferd_engines.standard import Engines, engines_on

from inferd_server.address import is_unix
from inferd_server.batching.fatal import end_process
from inferd_server.batching.inline import InlineLoop
from inferd_server.models.entries import State
from inferd_server.models.following import FollowerThread
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


def serve(
    settings: Settings,
    logs: LogControl,
    engines: Engines | None = None,
    store: FollowerThread | None = None,
) -> int:
    """Start, wait for a signal, drain.

    Args:
        settings: checked.
        logs: started.
        engines: to serve with; None: the standard ones.
        store: to follow, whose releases are laid out; None: there is none.

    Raises:
        StartupError: the server cannot start.
    """
    manager = taken_from(os.environ)
    signals = StopSignals()
    signals.install()
    wanted = settings.engine
    used = engines or engines_on(wanted.plan_store, wanted.gpu_wait)
    server = build(settings, logs, used, dict if store is None else store.follower.gauges)
    port, metrics_port = server.start()
    grpc_port = {} if is_unix(settings.listen.host) else {"grpc_port": port}
    where = {"host": settings.listen.host, **grpc_port, "metrics_port": metrics_port}
    probe = {"probe_port": server.probe_port} if server.probe_port >= 0 else {}
    log.info("listening", extra={**where, **probe})
    # On a thread of its own, so that a signal ends a start that takes long.
    threading.Thread(target=load, args=(server, manager), name="load", daemon=True).start()
    if store is not None:
        store.start(OwnModels(server))
    signals.wait()
    manager.stopping()
    ended = server.drain(signals.next())
    log.info("stopped")
    if not ended:
        if store is not None:
            store.stop()
        leave(0)
    return 0


class OwnModels:
    """The models of this process, as what follows a store changes them."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def load(self, name: str) -> None:
        """Read a model's folder anew and load what it asks for.

        Raises:
            InferdError: it cannot be loaded; what serves goes on.
        """
        self._server.repository.load(name)

    def unload(self, name: str) -> None:
        """Stop serving a model.

        Raises:
            ModelNotFound: nothing of that name was loaded.
        """
        self._server.repository.unload(name)

    def ready(self) -> set[tuple[str, int]] | None:
        """Return the versions that serve; None until all of the start were tried."""
        if not self._server.tried:
            return None
        entries = self._server.repository.entries()
        return {(e.name, e.version) for e in entries if e.state is State.READY}


def load(server: Server, manager: ServiceManager) -> None:
    """Load the models, and tell that the start is over, whatever came of it."""
    server.load()
    manager.ready()


def build(
    settings: Settings,
    logs: LogControl,
    engines: Engines,
    told: Callable[[], Mapping[str, float]] = dict,
) -> Server:
    """Put a server together with the transport of this host.

    Args:
        settings: checked.
        logs: started.
        engines: to serve with.
        told: returns what /metrics tells besides.
    """
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
        certificates=lambda: {**gauges(), **told()},
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
