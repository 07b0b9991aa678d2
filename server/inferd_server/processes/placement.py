"""The placement of models on workers, each of which has a GPU: decisions, and where models are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inferd_engines.devices import Device

from inferd_server.errors import InferdError, ModelNotReady, SettingsError
from inferd_server.models.config import Gpus
from inferd_server.models.layout import bytes_of, model_names, read_source
from inferd_server.models.overrides import Override

TIMES = 2
"""Times the size of its files that is reckoned for a model on a GPU: weights, and room to run."""
GIVEN_UP = "GPU {device} is given up: {why}"


@dataclass(frozen=True, slots=True)
class Need:
    """What a model needs of a GPU."""

    nbytes: int = 0
    """Of its files."""
    gpus: Gpus = None
    """As its model.yaml names them; None: the server decides."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a worker has left."""

    nbytes: int
    """Of its GPU's memory that is not reckoned for the models it has."""
    busy: float = 0.0
    """The part of the time for which its engines run; from 0 to the number of its models."""


def choose(need: Need, rooms: Mapping[int, Room]) -> int:
    """Return the worker that is to have a model: where it fits the least busy, or the emptiest.

    Args:
        need: of the model.
        rooms: of every worker that may be chosen, by index; one at least.
    """
    fits = {index for index, room in rooms.items() if room.nbytes >= TIMES * need.nbytes}
    if not fits:
        # Only the GPU knows; it is tried where most is left.
        return max(sorted(rooms), key=lambda index: rooms[index].nbytes)
    # A tenth more or less says nothing.
    return min(sorted(fits), key=lambda i: (round(rooms[i].busy, 1), -rooms[i].nbytes))


def named(gpus: Gpus, devices: Sequence[Device]) -> frozenset[int]:
    """Return the workers of the GPUs that a model.yaml names.

    Args:
        gpus: "all", or indexes and UUIDs, of which the first digits are enough.
        devices: of the workers, in their order.

    Raises:
        ModelNotReady: there is no such GPU.
    """
    if gpus is None or gpus == "all":
        return frozenset(range(len(devices)))
    return frozenset(_named(gpu, devices) for gpu in gpus)


def _named(gpu: int | str, devices: Sequence[Device]) -> int:
    if isinstance(gpu, int):
        found = [gpu] if gpu < len(devices) else []
    else:
        found = [i for i, device in enumerate(devices) if device.uuid.startswith(gpu)]
    if len(found) == 1:
        return found[0]
    there = ", ".join(f"{index} ({device.uuid})" for index, device in enumerate(devices))
    raise ModelNotReady(f"gpus names {gpu!r}, and this server has {there}")


class Placements:
    """Which workers have which models. Used under one lock but for `need`.

    One worker has all models, whatever their model.yaml says.
    """

    def __init__(
        self,
        repository: Path,
        devices: Sequence[Device],
    ) -> None:
        """Begin without models.

        Args:
            repository: folder of the models, or the file of one.
            devices: one for each worker; none or one: there is one worker.
        """
        self.devices = devices
        self._repository = repository
        self._usable = set(range(max(1, len(devices))))
        self._places: dict[str, frozenset[int]] = {}
        self._needs: dict[str, Need] = {}
        # Workers that serve a model until it serves elsewhere.
        self._leaving: dict[str, frozenset[int]] = {}
        self._given_up: dict[int, str] = {}
        self.refused: dict[str, str] = {}
        """Models that no worker may have, and why not."""

    @property
    def alone(self) -> bool:
        """True where there is one worker."""
        return len(self.devices) <= 1

    @property
    def workers(self) -> Collection[int]:
        """Indexes of the workers that are not given up."""
        return frozenset(self._usable)

    def holds(self, worker: int, name: str) -> bool:
        """True if a worker is to have a model, as any may that has no place."""
        return self.alone or worker in self._places.get(name, self._usable)

    def serves(self, worker: int, name: str) -> bool:
        """True if a worker is to have a model, or has it until another one does."""
        return self.holds(worker, name) or worker in self._leaving.get(name, ())

    def names_of(self, worker: int) -> frozenset[str] | None:
        """Return the models that a worker is to have; None: all that there are."""
        if self.alone:
            return None
        return frozenset(name for name, where in self._places.items() if worker in where)

    def survey(self) -> None:
        """Give every model of the repository a place that has none yet, the largest first."""
        if self.alone:
            return
        try:
            names = set(model_names(self._repository)).difference(self._places)
        except SettingsError:
            # Whoever loads the models tells of it, and tries again.
            return
        needs = {name: need_of(self._repository, name) for name in names}
        for name in sorted(names, key=lambda name: (-needs[name].nbytes, name)):
            self._place_safely(name, needs[name])

    def need(self, name: str, override: Override | None) -> Need:
        """Return what a model that is loaded needs; reads its folder."""
        return Need() if self.alone else need_of(self._repository, name, override)

    def decide(self, name: str, need: Need, busy: Mapping[int, float]) -> frozenset[int]:
        """Give a model that is loaded its place, and return where it was before.

        What has a place keeps it, unless its model.yaml names others now; `leave` or `restore`
        follows.

        Args:
            name: of the model.
            need: of it.
            busy: the part of the time for which each worker's engines run.

        Raises:
            ModelNotReady: it names a GPU that is not there, or that was given up.
        """
        before = self._places.get(name, frozenset())
        if not self.alone:
            stays = before & self._usable if need.gpus is None else frozenset()
            self._place(name, need, busy, stays)
            self._leaving[name] = before - self._places[name]
        return before

    def leave(self, name: str) -> frozenset[int]:
        """Return the workers that have a model no more, now that it serves where it was to go."""
        return self._leaving.pop(name, frozenset())

    def restore(self, name: str, before: frozenset[int]) -> None:
        """Put a model back where it was, because it could not be loaded where it was to go."""
        self._leaving.pop(name, None)
        if before:
            self._places[name] = before
        else:
            self._places.pop(name, None)

    def refuse(self, name: str, why: str) -> None:
        """Note why a model has no place any more."""
        self.refused[name] = why

    def forget(self, name: str) -> None:
        """Reckon nothing for a model that was unloaded; it keeps its place."""
        self._needs.pop(name, None)
        self.refused.pop(name, None)

    def give_up(self, worker: int, why: str) -> list[str]:
        """Take a worker's models away from it; return those that are to be loaded elsewhere.

        A model that has copies elsewhere goes on there; one whose model.yaml names this GPU alone
        is refused from now on.
        """
        self._usable.discard(worker)
        self._given_up[worker] = why
        moved = []
        for name in sorted(self.names_of(worker) or ()):
            left = self._places[name] - {worker}
            if left:
                self._places[name] = left
            elif self._place_safely(name, self._needs.get(name, Need())):
                moved.append(name)
        return moved

    def _place_safely(self, name: str, need: Need) -> bool:
        try:
            self._place(name, need, {})
        except InferdError as error:
            self._places.pop(name, None)
            self.refused[name] = str(error)
            return False
        return True

    def _place(
        self,
        name: str,
        need: Need,
        busy: Mapping[int, float],
        stays: frozenset[int] = frozenset(),
    ) -> None:
        where = stays or self._chosen(name, need, busy)
        self._places[name] = where
        self._needs[name] = need
        self.refused.pop(name, None)

    def _chosen(self, name: str, need: Need, busy: Mapping[int, float]) -> frozenset[int]:
        if need.gpus is None:
            return frozenset({choose(need, self._rooms(name, busy))})
        asked = named(need.gpus, self.devices)
        found = asked & self._usable
        if not found:
            worker = min(asked)
            device, why = self.devices[worker].uuid, self._given_up[worker]
            raise ModelNotReady(GIVEN_UP.format(device=device, why=why))
        return found

    def _rooms(self, name: str, busy: Mapping[int, float]) -> Mapping[int, Room]:
        """Return what every worker has left without a model."""
        taken = dict.fromkeys(self._usable, 0)
        for other, where in self._places.items():
            for worker in where & self._usable if other != name else ():
                taken[worker] += TIMES * self._needs.get(other, Need()).nbytes
        return {
            worker: Room(self.devices[worker].nbytes - nbytes, busy.get(worker, 0.0))
            for worker, nbytes in taken.items()
        }


def need_of(repository: Path, name: str, override: Override | None = None) -> Need:
    """Return what a model needs, as far as its folder tells; what is wrong there is told later."""
    try:
        config = None if override is None else override.check(name)
        if override is not None and override.files:
            return Need(override.nbytes, config.gpus if config else None)
        source = read_source(repository, name, config)
        nbytes = sum(bytes_of(path, repository) for path in source.versions.values())
        # All versions of a model are where the newest one says, if it has settings of its own.
        return Need(nbytes, source.config_of(max(source.versions)).gpus)
    except (InferdError, OSError):
        return Need()
