"""Methods that change or count something in all processes: the supervisor is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from inferd_server.inference.shared_memory import Region, RegionTable
from inferd_server.models.overrides import Override
from inferd_server.models.version import Handle
from inferd_server.monitoring.logs import LogControl
from inferd_server.monitoring.statistics import Snapshot
from inferd_server.processes import messages
from inferd_server.processes.channel import Channel
from inferd_server.processes.endpoint import Changes
from inferd_server.rpc.handlers import Elsewhere


class RemoteLoads:
    """Loads models in the worker, or in all replicas."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def load(self, name: str, override: Override | None = None) -> None:
        """Read a model's folder anew and load what it asks for; blocks."""
        self._channel.ask(messages.Load(name, override)).result()

    def unload(self, name: str) -> None:
        """Stop serving a model after it finished what it has; blocks."""
        self._channel.ask(messages.Unload(name)).result()


class RemoteRegions:
    """Regions of every process that takes calls."""

    def __init__(self, channel: Channel, own: RegionTable) -> None:
        self._channel = channel
        self._own = own

    def status(self, name: str) -> Mapping[str, Region]:
        """Return one region, or all when the name is empty."""
        return self._own.status(name)

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Open a part of a shared memory object in every one; blocks."""
        self._channel.ask(messages.RegisterRegion(name, key, offset, byte_size)).result()

    def unregister(self, name: str) -> None:
        """Forget one region in every one; blocks."""
        self._channel.ask(messages.NoRegion(name)).result()

    def unregister_all(self) -> None:
        """Forget all regions in every one; blocks."""
        self._channel.ask(messages.NoRegions()).result()


class RemoteLogs:
    """The logs of every process."""

    def __init__(self, channel: Channel, own: LogControl) -> None:
        self._channel = channel
        self._own = own

    def read(self) -> Mapping[str, bool | int | str]:
        """Return the settings as Triton names them."""
        return self._own.read()

    def change(self, changes: Mapping[str, bool | int | str]) -> None:
        """Change some of them everywhere; blocks."""
        self._channel.ask(messages.LogChange(changes)).result()


class RemoteCounters:
    """What all processes counted."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def __call__(self, handles: Sequence[Handle]) -> list[Snapshot]:
        """Return what each of these versions did; blocks."""
        counted = self._channel.ask(messages.Measurements()).result().statistics
        return [counted.get((handle.name, handle.version), Snapshot()) for handle in handles]


def remote_changes(
    channel: Channel, regions: RegionTable, logs: LogControl, asking: Elsewhere
) -> Changes:
    """Return the parts that change something everywhere by way of the supervisor.

    Args:
        channel: to it.
        regions: of this process.
        logs: of this process.
        asking: runs the methods that wait for its answer.
    """
    return Changes(
        RemoteLoads(channel),
        RemoteRegions(channel, regions),
        RemoteLogs(channel, logs),
        RemoteCounters(channel),
        lambda: channel.ask(messages.ShowDrift()).result().reports,
        asking,
    )
