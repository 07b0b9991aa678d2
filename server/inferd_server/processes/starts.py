"""The starts of processes: what each is told of the server before it does anything."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from inferd_engines.cores import usable_cores

from inferd_server.feedback.keys import TokenKeys
from inferd_server.monitoring.logs import LogControl
from inferd_server.processes import messages
from inferd_server.processes.holders import Holders
from inferd_server.processes.links import Links
from inferd_server.processes.placement import Placements
from inferd_server.processes.policy import for_replica, wants_gpu, without_gpu
from inferd_server.processes.ports import Ports
from inferd_server.processes.quarantine import Quarantine
from inferd_server.processes.shared_state import Registry
from inferd_server.processes.spawn import FRONT, REPLICA, WORKER, Child, name_of
from inferd_server.processes.together import unloaded
from inferd_server.processes.worker_deaths import WorkerDeaths
from inferd_server.settings.model import Settings

log = logging.getLogger(__name__)
SpawnChild = Callable[[str, messages.ProcessPlace, Sequence[int]], Child]


@dataclass(frozen=True, slots=True)
class ServerParts:
    """What a new process is told of."""

    settings: Settings
    links: Links
    ports: Ports
    logs: LogControl
    holders: Holders
    placements: Placements | None
    """None where there are replicas."""
    deaths: WorkerDeaths
    quarantine: Quarantine
    regions: Registry
    replicas: int
    token_keys: TokenKeys


class Starts:
    """Starts processes. Every method is called under the lock of the parts."""

    def __init__(
        self,
        parts: ServerParts,
        spawn_child: SpawnChild,
        failures: Callable[[str], int],
        condition: Callable[[], messages.Condition],
        taking_calls: Callable[[], bool],
    ) -> None:
        """Begin without any.

        Args:
            parts: what a new process is told of.
            spawn_child: starts a process of a role, given its place and what it inherits.
            failures: returns how often in a row a process ended before it was of any use.
            condition: returns what is true of the whole server.
            taking_calls: tells whether any process takes calls.
        """
        self._parts = parts
        self._spawn_child = spawn_child
        self._failures = failures
        self._condition = condition
        self._taking_calls = taking_calls
        # Why processes leave a GPU alone, by name; "" if they do not.
        self._without_gpu: dict[str, str] = {}

    def start(self, role: str, index: int) -> Child:
        """Start a process."""
        if role == WORKER:
            return self._worker(index)
        return self._replica(index) if role == REPLICA else self._front(index)

    def leaves_gpu(self, child: Child) -> bool:
        """True for a process that was started to leave the GPU alone."""
        return bool(self._without_gpu.get(child.name))

    def _worker(self, index: int) -> Child:
        parts, placements = self._parts, self._parts.placements
        assert placements is not None
        placements.survey()
        place, inherited = parts.links.for_worker(parts.settings, parts.ports.address, index)
        device = placements.devices[index].uuid if placements.devices else ""
        place = replace(
            place, device=device, held=placements.names_of(index), alone=placements.alone
        )
        return self._holder(WORKER, place, inherited, counts=True)

    def _replica(self, index: int) -> Child:
        parts = self._parts
        settings = for_replica(parts.settings, parts.replicas, usable_cores())
        ports = parts.ports
        place = parts.links.for_replica(index, settings, ports.address, ports.probe_address)
        place = replace(place, token_keys=parts.token_keys)
        # Beside others that take calls it is to have what they have.
        alone = not self._taking_calls()
        child = self._holder(REPLICA, place, (), counts=alone)
        self._tell_endpoint(child)
        if alone:
            child.channel.tell(messages.Listen())
        return child

    def _front(self, index: int) -> Child:
        parts, ports = self._parts, self._parts.ports
        place, inherited = parts.links.for_front(
            index, parts.settings, ports.address, ports.probe_address
        )
        place = replace(place, logs=parts.logs.read(), token_keys=parts.token_keys)
        child = self._spawn_child(FRONT, place, inherited)
        child.channel.tell(messages.Quarantined(tuple(parts.quarantine.marks())))
        child.channel.tell(parts.holders.models)
        # The last, because the front listens as soon as it knows the condition.
        self._tell_endpoint(child)
        return child

    def _tell_endpoint(self, child: Child) -> None:
        self._parts.regions.tell(child)
        child.channel.tell(self._condition())

    def _holder(
        self, role: str, place: messages.ProcessPlace, inherited: Sequence[int], counts: bool
    ) -> Child:
        """Start a process that is to load what the ones before it had."""
        parts, models = self._parts, self._parts.holders.models
        engine, name = parts.settings.engine, name_of(role, place.index, place.alone)
        why = without_gpu(engine.cpu_fallback, wants_gpu(engine), self._failures(name))
        if why:
            log.error("the next worker leaves the GPU alone", extra={"why": why})
        self._without_gpu[name] = why
        held = place.held
        overrides = {
            name: override
            for name, override in parts.holders.overrides.items()
            if held is None or name in held
        }
        place = replace(
            place,
            without_gpu=why,
            awaits_overrides=bool(overrides),
            logs=parts.logs.read(),
            wanted=models.wanted if held is None else models.wanted & held,
            unloaded=unloaded(models),
            left_out=parts.deaths.left_out,
            batch_limits=parts.deaths.batch_limits,
        )
        child = self._spawn_child(role, place, inherited)
        parts.holders.begin(child, counts)
        if overrides:
            child.channel.tell(messages.ModelOverrides(overrides))
        return child
