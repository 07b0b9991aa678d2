"""The policy of processes: how many, and when one that died starts again; pure functions."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inferd_engines.devices import Device

from inferd_server.settings.model import EngineSettings, Settings

FIRST_S, LONGEST_S = 0.1, 5.0
"""Seconds before the second attempt in a row, and before any."""
LIMIT = 8
"""Starts in a row that may fail before the server gives up."""
FAILURES_ON_GPU = 3
"""Of these, so many before the processor is tried."""
MANY_FRONTS = 12


MOST_REPLICAS = 16
"""That are started unless more are asked for: each holds every model, and Python beside it."""
REPLICA_BYTES = 192 << 20
"""Memory that is reckoned for a replica: 75 MiB before the first request, and rows of requests."""
MODEL_TIMES = 4
"""Times the size of its file that is reckoned for a model when it runs."""
SMALL_BYTES = 16 << 20
"""Files of all models below which replicas are tried: they are held once for each core, and what
reads so little from memory is quick for most models."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Front processes before a worker process, or replicas; neither: one process does it all."""

    fronts: int
    reason: str
    replicas: int = 0

    @property
    def described(self) -> str:
        """In words."""
        if self.replicas:
            return f"{self.replicas} replica process{'es' if self.replicas > 1 else ''}"
        if not self.fronts:
            return "one process"
        return f"{self.fronts} front process{'es' if self.fronts > 1 else ''} and a worker process"


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """The processes of a server: fronts and workers, or replicas."""

    fronts: int
    """0 where there are replicas."""
    replicas: int = 0
    devices: Sequence[Device] = ()
    """GPUs that each have a worker; none: there is one worker, for whatever there is."""

    @property
    def role(self) -> str:
        """Of the processes that take calls."""
        return "replica" if self.replicas else "front"

    @property
    def workers(self) -> int:
        """How many."""
        return max(1, len(self.devices))


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What can be known of the models before any process has loaded one."""

    nbytes: int = 0
    """Of all their files."""
    sequences: str = ""
    """The name of one whose requests build on each other; empty: there is none."""
    known: bool = True
    """False where there is no model yet, or a folder could not be read."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator asked for."""

    processes: str
    """"auto", "split", "replicas", or an arrangement of one process."""
    fronts: int = 0
    """0 asks for a choice."""
    replicas: int = 0
    """0 asks for a choice."""


@dataclass(frozen=True, slots=True)
class Host:
    """What there is to serve with."""

    cores: int
    """That this server may use."""
    providers: Sequence[str] = ()
    """Devices that the operator named."""
    room: int | None = None
    """Bytes of memory that the host and the limits leave; None: unknown."""


def arrange(wish: Wish, host: Host, models: Callable[[], ModelFacts]) -> Arrangement:
    """Decide which processes there are.

    Args:
        wish: of the operator.
        host: that serves.
        models: returns what is known of them; called only where that matters.
    """
    asked, reason = wish.processes, "asked for"
    if asked == "auto":
        asked, reason = choose(wish, host, models)
    if asked == "split":
        return Arrangement(front_count(wish.fronts, host.cores, host.providers), reason)
    if asked == "replicas":
        return Arrangement(0, reason, wish.replicas or replica_count(host, models().nbytes))
    return Arrangement(0, reason)


def choose(wish: Wish, host: Host, models: Callable[[], ModelFacts]) -> tuple[str, str]:
    """Return "split", "replicas" or "one process", and why; arguments as above.

    On one or two cores without a GPU processes would only take time from each other. Which
    models run inline there, or in a replica, is decided for each of them, when it was warmed up.
    """
    cores = host.cores
    if has_gpu(host.providers):
        return "split", "an engine on a device that can fail needs a process of its own"
    if cores <= 2:
        return "one process", f"{cores} core{'s' if cores > 1 else ''}, and no GPU"
    if wish.fronts:
        return "split", f"{cores} cores, and the number of fronts is given"
    facts = models()
    if why := why_no_replicas(facts):
        return "split", f"{cores} cores; no replicas: {why}"
    if not wish.replicas and replica_count(host, facts.nbytes) < 2:
        return "split", f"{cores} cores; no replicas: there is no memory for two"
    return "replicas", f"{cores} cores; the models' files have {facts.nbytes / 2**20:.1f} MiB"


def why_no_replicas(models: ModelFacts) -> str:
    """Say why replicas should not serve some models; "" if they should.

    How long a batch takes is known only once an engine runs it. The size of the files stands for
    it, and for the memory that each replica takes.
    """
    if models.sequences:
        return f"requests of {models.sequences!r} build on each other"
    if not models.known:
        return "the models are not known yet"
    if models.nbytes > SMALL_BYTES:
        most = SMALL_BYTES >> 20
        return f"the models' files have {models.nbytes / 2**20:.0f} MiB, more than {most}"
    return ""


def replica_count(host: Host, nbytes: int) -> int:
    """Return how many replicas to start: each fills about one core, and takes its memory.

    Args:
        host: that serves.
        nbytes: of all models' files.
    """
    most = min(MOST_REPLICAS, host.cores)
    if host.room is not None:
        most = min(most, host.room // (REPLICA_BYTES + MODEL_TIMES * nbytes))
    return max(1, most)


def for_replica(settings: Settings, replicas: int, usable: int) -> Settings:
    """Return the settings of one replica, which counts on its part of the cores."""
    engine = settings.engine
    cores = max(1, (engine.cores or usable) // replicas)
    part = engine.model_copy(update={"cores": cores})
    return settings.model_copy(update={"engine": part})


def front_count(asked: int, cores: int, providers: Sequence[str]) -> int:
    """Return how many fronts to start; 0 asks for a choice.

    A front fills about one core. Beside a GPU the cores are theirs; on the CPU most of them
    are the engines'.
    """
    if asked:
        return asked
    if has_gpu(providers):
        return max(1, min(MANY_FRONTS, cores - 2))
    return max(1, min(MANY_FRONTS, cores // 4))


def without_gpu(allowed: bool, gpu: bool, failures: int) -> str:
    """Say why the next worker should leave the GPU alone; "" if it should not.

    Args:
        allowed: `cpu_fallback`.
        gpu: one was asked for.
        failures: workers in a row that ended before they served.
    """
    if not (allowed and gpu) or failures < FAILURES_ON_GPU:
        return ""
    return f"{failures} worker processes in a row ended before they served"


def wants_gpu(engine: EngineSettings) -> bool:
    """Tell whether a GPU was asked for: whoever names a store of plans means one."""
    return bool(engine.plan_store) or has_gpu(engine.engine_providers)


def has_gpu(providers: Sequence[str]) -> bool:
    """Tell whether a device other than the processor was asked for."""
    return any(not provider.upper().startswith("CPU") for provider in providers)


def restart_delay(failures: int, limit: int = LIMIT) -> float | None:
    """Return the seconds to wait before the next start; None to give up.

    Args:
        failures: starts in a row that ended before the process was of any use.
        limit: of these.
    """
    if failures > limit:
        return None
    return 0.0 if failures < 2 else min(LONGEST_S, FIRST_S * 2.0 ** (failures - 2))


HINTS = {
    signal.SIGKILL: "as the kernel does where memory runs out",
    signal.SIGSEGV: "a crash in native code",
    signal.SIGABRT: "native code gave up",
    signal.SIGBUS: "a crash in native code",
    signal.SIGILL: "code that this processor does not know",
    signal.SIGFPE: "a crash in native code",
}


def cause(code: int) -> str:
    """Say in words how a process ended.

    Args:
        code: its exit code; of a signal, the number with a minus.
    """
    if code == os.EX_SOFTWARE:
        return "its engine failed for good"
    if code >= 0:
        return f"it ended with exit code {code}"
    try:
        number = signal.Signals(-code)
    except ValueError:
        return f"killed by signal {-code}"
    hint = HINTS.get(number)
    return f"killed by {number.name}" + (f", {hint}" if hint else "")
