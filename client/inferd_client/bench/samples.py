"""What a run measured, and the figures that sum it up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

OK = "OK"

# In thousandths: integers, since 99.9 % of 1000 must be 999 and not a little more.
PERCENTILES = {"p50": 500, "p90": 900, "p99": 990, "p99.9": 999}


@dataclass(slots=True)
class Samples:
    """Raw figures of one process; `started` and `ended` are on the machine's monotonic clock.

    `latencies` are the seconds of successful requests; `codes` counts all by status code;
    `unsent` were due in open loop and never started; `cpu` is the processor time of the
    load generator in seconds; `different` counts answers that are unlike the first one, and
    is None where nobody looked.
    """

    started: float
    ended: float = 0.0
    cpu: float = 0.0
    unsent: int = 0
    different: int | None = None
    latencies: list[float] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)

    def add(self, code: str, latency: float) -> None:
        """Count one answer."""
        self.codes[code] += 1
        if code == OK:
            self.latencies.append(latency)


def merge(parts: Sequence[Samples]) -> Samples:
    """Join the figures of processes that ran side by side."""
    looked = [part.different for part in parts if part.different is not None]
    return Samples(
        started=min(part.started for part in parts),
        ended=max(part.ended for part in parts),
        cpu=sum(part.cpu for part in parts),
        unsent=sum(part.unsent for part in parts),
        different=None if not looked else sum(looked),
        latencies=[latency for part in parts for latency in part.latencies],
        codes=sum((part.codes for part in parts), Counter()),
    )


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a run; see `report` for their units."""

    requests: int
    succeeded: int
    errors: dict[str, int]
    unsent: int
    different: int | None
    elapsed_s: float
    requests_per_s: float
    rows_per_s: float
    latency_ms: dict[str, float]
    client_cores: float


def summarise(samples: Samples, rows: int) -> Summary:
    """Sum up a run of requests with so many rows each.

    Rates count successful requests over the time from the first start to the last answer.
    """
    elapsed = max(samples.ended - samples.started, 1e-9)
    succeeded = len(samples.latencies)
    errors = {code: count for code, count in samples.codes.most_common() if code != OK}
    return Summary(
        requests=samples.codes.total(),
        succeeded=succeeded,
        errors=errors,
        unsent=samples.unsent,
        different=samples.different,
        elapsed_s=elapsed,
        requests_per_s=succeeded / elapsed,
        rows_per_s=succeeded * rows / elapsed,
        latency_ms=distribution(np.array(samples.latencies, np.float64) * 1e3),
        client_cores=samples.cpu / elapsed,
    )


def distribution(values: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return mean, percentiles and extremes; empty when there are no values.

    Percentiles are by nearest rank: each is a value that was really measured.
    """
    if not values.size:
        return {}
    ordered = np.sort(values)
    ranks = {name: -(-ordered.size * share // 1000) for name, share in PERCENTILES.items()}
    return {
        "mean": float(values.mean()),
        "min": float(ordered[0]),
        **{name: float(ordered[rank - 1]) for name, rank in ranks.items()},
        "max": float(ordered[-1]),
    }
