"""A double for a TensorRT that times tactics: builds plans of nothing, and counts what it timed.

A model is one "input" and one "output" of [batch, 4]; every profile has a tactic, which is timed
unless the timing cache knows it. A cache is of one TensorRT and one device, as the real ones are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import SimpleNamespace
from typing import Any

from tests.fakes.tensorrt import DataType, ILogger

MAGIC = b"timed on "


class IProgressMonitor:
    """The base of progress monitors."""


class ITimingCache:
    """What was timed on a device."""

    def __init__(self, device: str, known: Sequence[str] = ()) -> None:
        self.device = device
        self.known = list(known)

    def serialize(self) -> bytes:
        """As it is kept."""
        return MAGIC + self.device.encode() + b":" + ",".join(self.known).encode()

    def combine(self, other: ITimingCache, ignore_mismatch: bool) -> bool:
        """Take what another one of the same device knows."""
        assert not ignore_mismatch
        self.known += [name for name in other.known if name not in self.known]
        return other.device == self.device


@dataclass
class BuilderConfig:
    """Profiles and the timing cache of one build."""

    device: str
    profiles: list[dict[str, Any]] = field(default_factory=list)
    cache: ITimingCache | None = None
    progress_monitor: Any = None

    def add_optimization_profile(self, profile: Any) -> int:
        """Take a profile."""
        self.profiles.append(profile.shapes)
        return len(self.profiles) - 1

    def create_timing_cache(self, data: bytes) -> ITimingCache | None:
        """Read a cache; a new one for no bytes."""
        if not data:
            return ITimingCache(self.device)
        if not data.startswith(MAGIC):
            return None
        device, _, known = data.removeprefix(MAGIC).decode().partition(":")
        return ITimingCache(device, list(filter(None, known.split(","))))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        """Use a cache, if it is of this device."""
        assert not ignore_mismatch
        if cache.device != self.device:
            return False
        self.cache = cache
        return True


class Profile:
    """Shapes by name."""

    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, name: str, least: Any, most_often: Any, most: Any) -> None:
        """Take a range."""
        self.shapes[name] = most


@dataclass(eq=False)
class TimingTensorRT:
    """The module `tensorrt` of a host with one GPU."""

    device: str = "GPU-A"
    timed: list[str] = field(default_factory=list)
    """Tactics that were timed, in all builds."""
    __version__ = "11.0.fake"
    DataType = DataType
    ILogger = ILogger
    IProgressMonitor = IProgressMonitor
    ITimingCache = ITimingCache
    BuilderFlag = Enum("BuilderFlag", ["VERSION_COMPATIBLE"])  # type: ignore[misc]

    def Builder(self, logger: Any) -> Any:  # noqa: N802 TensorRT calls it that
        """Make a builder."""
        return SimpleNamespace(
            create_network=lambda _flags: network(),
            create_builder_config=lambda: BuilderConfig(self.device),
            create_optimization_profile=Profile,
            build_serialized_network=self._build,
        )

    def OnnxParser(self, found: Any, logger: Any) -> Any:  # noqa: N802 TensorRT calls it that
        """Make a parser that takes everything."""
        return SimpleNamespace(parse_from_file=lambda _path: True)

    def _build(self, found: Any, config: BuilderConfig) -> bytes:
        assert config.cache is not None
        tactics = [str(shapes["input"]).replace(",", "x") for shapes in config.profiles]
        new = [name for name in tactics if name not in config.cache.known]
        self.timed += new
        config.cache.known += new
        return b"a plan of " + b" ".join(name.encode() for name in tactics)


def network() -> Any:
    """Return the one network that there is."""

    def tensor(name: str) -> Any:
        return SimpleNamespace(name=name, dtype=DataType["FLOAT"], shape=(-1, 4))

    return SimpleNamespace(
        num_inputs=1,
        num_outputs=1,
        get_input=lambda _index: tensor("input"),
        get_output=lambda _index: tensor("output"),
    )
