"""What may be asked of a build. All of it is part of the plan's key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from inferd_engines.tensorrt.errors import BuildFailed
from inferd_engines.tensorrt.profiles import BUCKETS, Range

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
"""Of the graph, but for tf32, which multiplies fp32 with 10 bits of its fraction: faster, and as
near as fp16. int8 and fp8 come from Q/DQ nodes that are there already."""
LEVELS = range(6)
WAITS = ("spin", "block")
"""How the engine's thread waits for the GPU: on a core of its own, or asleep, some us longer."""
COMPATIBILITIES = ("none", "ampere_plus", "same_compute_capability")


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How a plan is built."""

    precision: str = "fp32"
    buckets: tuple[int, ...] = BUCKETS
    """Batch sizes with a profile each."""
    ranges: Mapping[str, Range] = field(default_factory=dict)
    """Of inputs with free dimensions besides the batch, without it."""
    batched: bool = True
    targets: tuple[str, ...] = ()
    """Compute capabilities, such as "8.9"; empty: the flavour's default, or this GPU."""
    optimization_level: int | None = None
    """0 (quick to build) to 5; None leaves it to TensorRT."""
    workspace_bytes: int | None = None
    version_compatible: bool = False
    """Works with later versions, too. The plan then carries code that loading runs."""
    hardware_compatibility: str = "none"

    def __post_init__(self) -> None:
        """Check what does not depend on the model.

        Raises:
            BuildFailed: an option is none of those there are.
        """
        if self.precision not in PRECISIONS:
            raise BuildFailed(f"precision {self.precision!r} is none of {', '.join(PRECISIONS)}")
        if self.hardware_compatibility not in COMPATIBILITIES:
            raise BuildFailed(
                f"hardware compatibility {self.hardware_compatibility!r} is none of "
                f"{', '.join(COMPATIBILITIES)}"
            )
        if self.optimization_level not in (None, *LEVELS):
            raise BuildFailed(f"optimization level {self.optimization_level} is none of 0 to 5")
        if self.batched and (not self.buckets or min(self.buckets) < 1):
            raise BuildFailed(f"buckets have to be batch sizes from 1 on, not {self.buckets}")
