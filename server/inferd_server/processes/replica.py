"""A replica: a whole server in one process, beside others that have the same models and ports."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from inferd_engines.engine import Opener

from inferd_server.batching.fatal import end_process
from inferd_server.batching.inline import InlineLoop
from inferd_server.errors import InferdError, ModelNotReady, NotFound
from inferd_server.models.entries import ModelEntry, State
from inferd_server.models.loader import loader_of
from inferd_server.models.version import Handle
from inferd_server.monitoring.busy import ratio
from inferd_server.monitoring.logs import LogControl
from inferd_server.monitoring.metrics import Metrics
from inferd_server.processes import messages
from inferd_server.processes.channel import Channel
from inferd_server.processes.endpoint import Endpoint
from inferd_server.processes.endpoint_process import EndpointProcess
from inferd_server.processes.model_host import CLOSE_S, ModelHost
from inferd_server.transport.call import Transport


class ReplicaProcess(EndpointProcess):
    """Transport, front, scheduler and engines, put together; the supervisor speaks for them."""

    def __init__(
        self,
        place: messages.ProcessPlace,
        channel: Channel,
        opener: Opener,
        transport: Transport,
        logs: LogControl,
        inline: InlineLoop | None = None,
        probe: Transport | None = None,
        certificates: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        """Put the parts together; nothing is loaded, and nothing listens.

        Args:
            place: what it is.
            channel: to the supervisor.
            opener: opens model files.
            transport: not started.
            logs: started.
            inline: whose turns the transport takes; None if it takes none.
            probe: for the port of probes, not started; None if there is none.
            certificates: returns what /metrics tells of them.
        """
        super().__init__(place, channel, transport, logs)
        metrics, clock = Metrics(lines=logs.recent), time.monotonic
        loader = loader_of(
            place.settings, opener, metrics, clock, inline, replicated=True, end=end_process
        )
        # One of them is enough to watch.
        progress = partial(show, logs if place.index == 0 else None)
        self._host = host = ModelHost(place, channel, loader, metrics, progress, self._changed)
        self._endpoint = Endpoint(
            place.settings,
            place.token_keys,
            transport,
            Incoming(host, lambda: self._condition.loaded),
            metrics,
            lambda: self._condition,
            channel.tell,
            loader.release_idle,
            lambda: {**loader.gauges(), **certificates()},
            lambda: ratio(host.busy.shares()),
            probe,
            references=loader.drift.references,
        )

    def run(self) -> None:
        """Serve, and do what is asked until the supervisor is gone."""
        self._host.start()
        self._channel.read(self._handle)

    def reload(self, model: Path) -> None:
        """Load the model of a file anew, because a better engine can serve it now.

        Raises:
            InferdError: it cannot be loaded; what serves goes on.
        """
        self._host.reload(model)

    def _changed(self) -> None:
        self._endpoint.models_changed()

    def _handle(self, message: object) -> object:
        match message:
            case messages.Listen():
                self._listen()
            case messages.ModelOverrides():
                self._host.restore(message)
            case messages.Load(name, override):
                self._host.load(name, override)
            case messages.Unload(name):
                self._host.repository.unload(name)
            case _:
                return self._handle_common(message)
        return None

    def _measure(self) -> messages.Measured:
        return self._host.measure()

    def _close_models(self) -> None:
        self._host.repository.close(CLOSE_S)


def show(logs: LogControl | None, text: str) -> None:
    """Show how far the loading of the start is, on a terminal."""
    if logs is not None:
        logs.progress(text)


class Incoming:
    """The models as callers see them: while they are being loaded, none is said not to exist.

    Nor is any said to be ready before all replicas have tried to load theirs: the next call may
    reach another one.
    """

    def __init__(self, host: ModelHost, loaded: Callable[[], bool]) -> None:
        """Show the models of `host`; `loaded` tells whether all replicas have tried."""
        self._host = host
        self._loaded = loaded

    def resolve(self, name: str, version: str) -> Handle:
        """Return the handle for a request; "" takes the highest version that takes any.

        Raises:
            ModelNotFound: no such model.
            VersionNotFound: it has no such version.
            ModelNotReady: it is known and not serving, or it may come yet.
        """
        try:
            return self._host.repository.resolve(name, version)
        except NotFound as error:
            raise self._told(name, error) from None

    def choose(self, name: str, version: str) -> ModelEntry:
        """Return the version that a request would be sent to, serving or not.

        Raises:
            ModelNotFound: no such model.
            VersionNotFound: it has no such version.
            ModelNotReady: it may come yet.
        """
        try:
            return self._shown(self._host.repository.choose(name, version))
        except NotFound as error:
            raise self._told(name, error) from None

    def entries(self) -> list[ModelEntry]:
        """Return every version of every model, sorted."""
        return [self._shown(entry) for entry in self._host.repository.entries()]

    def _shown(self, entry: ModelEntry) -> ModelEntry:
        early = entry.state is State.READY and not self._loaded()
        return replace(entry, state=State.LOADING) if early else entry

    def _told(self, name: str, error: NotFound) -> InferdError:
        if self._host.settled:
            return error
        return ModelNotReady(f"model {name!r} is not loaded yet: the server starts")
