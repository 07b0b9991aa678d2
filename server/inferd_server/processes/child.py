"""A process that the supervisor starts by `python -m`; not for people."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from inferd_server.environment import collect_seldom
from inferd_server.monitoring.logs import LogControl
from inferd_server.processes.channel import Channel, receive
from inferd_server.processes.format import Told
from inferd_server.processes.messages import Ending, ProcessPlace

if TYPE_CHECKING:
    from inferd_engines.standard import Engines

PR_SET_PDEATHSIG = 1
log = logging.getLogger(__name__)


def main(arguments: list[str], engines: Callable[[ProcessPlace], Engines] | None = None) -> int:
    """Run one role until the supervisor is gone.

    Args:
        arguments: role, process id of the supervisor, and descriptors: of the connection to it,
            and of where the log goes.
        engines: returns those of a worker or replica; None: the standard ones.
    """
    collect_seldom()
    role = arguments[0]
    parent, descriptor, log_descriptor = map(int, arguments[1:4])
    die_with(parent)
    # The supervisor is told to stop, and tells us: a terminal or a service manager signals all.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    connection: Connection[Any, Any] = Connection(descriptor)
    told = receive(connection)
    assert isinstance(told, Told)
    place = told.body
    assert isinstance(place, ProcessPlace)
    name = role if role == "worker" and place.alone else f"{role}-{place.index}"
    os.set_inheritable(log_descriptor, False)
    stream = os.fdopen(log_descriptor, "w", encoding="utf-8")
    logs = LogControl(place.settings.log, stream, part=name)
    logs.start()
    logs.change(place.logs)
    try:
        run(role, place, Channel(connection), logs, engines or engines_of)
    except BaseException:
        log.exception("the process ends")
        raise
    finally:
        with suppress(OSError):
            # Full, most likely.
            sys.stderr.flush()
    # Threads may be inside an engine, and Python's own way out would wait for them or abort.
    os._exit(0)


def run(
    role: str,
    place: ProcessPlace,
    channel: Channel,
    logs: LogControl,
    engines_for: Callable[[ProcessPlace], Engines],
) -> None:
    """Put the parts of a role together; only here, so that a worker never loads gRPC."""
    if role == "worker":
        from inferd_engines.devices import DeviceProblem

        from inferd_server.processes.worker import WorkerProcess

        try:
            engines = engines_for(place)
        except DeviceProblem as problem:
            # Another GPU may be better: the supervisor decides.
            channel.tell(Ending(f"GPU {place.device} cannot be used: {problem}"))
            channel.close()
            channel.read(lambda _: None)
            return
        worker = WorkerProcess(place, channel, engines.opener, logs)
        engines.when_ended(worker.reload)
        worker.run()
    else:
        run_endpoint(role, place, channel, logs, engines_for)


def run_endpoint(
    role: str,
    place: ProcessPlace,
    channel: Channel,
    logs: LogControl,
    engines_for: Callable[[ProcessPlace], Engines],
) -> None:
    """Put the parts of a process together that takes calls."""
    from inferd_server.batching.inline import InlineLoop
    from inferd_server.processes.front import FrontProcess
    from inferd_server.processes.front_links import links_of
    from inferd_server.processes.replica import ReplicaProcess
    from inferd_server.security.opening import await_files, credentials_of
    from inferd_server.transport.making import COMPLETION_QUEUE, choose_transport, for_probes, make
    from inferd_server.transport.options import transport_options

    await_files(place.settings, time.sleep)
    listen, credentials = place.settings.listen, credentials_of(place.settings)
    options = transport_options(listen, reuse_port=True, credentials=credentials)
    name = choose_transport(listen.transport, options)
    probe = make(name, for_probes(options)) if place.probe_address else None
    gauges = dict if credentials is None else credentials.gauges
    if role == "front":
        links = links_of(place)
        transport = make(name, options, links)
        FrontProcess(place, channel, transport, logs, links, probe, gauges).run()
        return
    inline, engines = InlineLoop(time.monotonic), engines_for(place)
    transport = make(name, options, inline)
    hosted = inline if name == COMPLETION_QUEUE else None
    replica = ReplicaProcess(place, channel, engines.opener, transport, logs, hosted, probe, gauges)
    engines.when_ended(replica.reload)
    replica.run()


def engines_of(place: ProcessPlace) -> Engines:
    """Return the engines of a worker or a replica.

    Raises:
        DeviceProblem: the GPU that it has for itself does not work.
    """
    from inferd_engines.standard import cpu_engines, engines_on

    if place.without_gpu:
        return cpu_engines(place.without_gpu)
    wanted = place.settings.engine
    return engines_on(wanted.plan_store, wanted.gpu_wait, place.device)


def die_with(parent: int) -> None:
    """Let the kernel end this process when its parent ends, however that does.

    Source: prctl(2), PR_SET_PDEATHSIG.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
