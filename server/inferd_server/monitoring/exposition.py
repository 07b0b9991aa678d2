"""The text of /metrics: what prometheus_client would write, a tenth of its time.

With many models nearly all lines are buckets of histograms, whose names and labels are the same in
every answer: they are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from inferd_server.monitoring.collector import Histogram, labels_of
from inferd_server.monitoring.series import BOUNDS, Distribution, TracedRequest

Family: TypeAlias = Metric | Histogram
Labels: TypeAlias = tuple[tuple[str, str], ...]
Texts: TypeAlias = tuple[str, ...]
"""Names with labels of one histogram's samples: its buckets, then count, sum and `_created`."""
MOST_HISTOGRAMS, MOST_LABELS, MOST_LINES, MOST_NUMBERS = 16_384, 65_536, 4096, 512
"""Texts that are kept; those used longest ago are made anew."""
EXACT = 1_000_000
"""From here on a number is written with an exponent."""
AT_ONCE_S, PAUSE_S = 0.0003, 0.00005
"""How long other threads wait for this one at most, and how long it lets them run: Python would
make them wait for 5 ms, and each of them several times for a request."""
go_float: Callable[[float], str] = lru_cache(MOST_NUMBERS)(floatToGoString)
"""Writes a number as Go does; most are those of last time, or of another model."""
APART = "_created"
"""What the older format knows as gauges of their own, which come last."""


class Pauses:
    """Lets other threads of this process run every so often, while an answer is written."""

    def __init__(self) -> None:
        self._paused = time.perf_counter()

    def __call__(self) -> None:
        """Sleep a moment, if the last time was long enough ago."""
        if time.perf_counter() - self._paused > AT_ONCE_S:
            time.sleep(PAUSE_S)
            self._paused = time.perf_counter()


OLDER = {"counter": "{}_total", "info": "{}_info"}
"""Names in the older format, by kind."""


def openmetrics_text(families: Iterable[Family]) -> bytes:
    """Write OpenMetrics. Source: OpenMetrics 1.0."""
    found, pause = list[str](), Pauses()
    for family in families:
        found += head(family.name, family.documentation, family.type)
        found += lines_of(family, told, pause)
    return "".join([*found, "# EOF\n"]).encode()


def plain_text(families: Iterable[Family]) -> bytes:
    """Write the text format before OpenMetrics, 0.0.4, which knows no exemplars."""
    found, pause = list[str](), Pauses()
    for family in families:
        kind = "gauge" if family.type == "info" else family.type
        name = OLDER.get(family.type, "{}").format(family.name)
        found += head(name, family.documentation, kind)
        created = f"{family.name}{APART}"
        later: list[str] = []
        for line in lines_of(family, untold, pause):
            (later if line.startswith(created) else found).append(line)
        if later:
            found += [*head(created, family.documentation, "gauge"), *later]
    return "".join(found).encode()


def head(name: str, text: str, kind: str) -> Sequence[str]:
    """Return what stands above a metric; our texts need no escapes."""
    return f"# HELP {name} {text}\n", f"# TYPE {name} {kind}\n"


def lines_of(
    family: Family, example: Callable[[TracedRequest], str], pause: Callable[[], None]
) -> Iterator[str]:
    """Yield the lines of a metric, with `example` behind the buckets that have one."""
    if isinstance(family, Histogram):
        yield from buckets(family, example, pause)
        return
    for sample in family.samples:
        yield sample_line(sample)
        pause()


def sample_line(sample: Sample) -> str:
    """Return the line of a sample."""
    labels = sample.labels
    text = labelled(sample.name, tuple(labels.items())) if labels else sample.name
    return f"{text} {go_float(sample.value)}\n"


def buckets(
    family: Histogram, example: Callable[[TracedRequest], str], pause: Callable[[], None]
) -> Iterator[str]:
    """Yield the lines of a histogram of every model version, all but `_created` in one piece."""
    for (model, version), series in family.series.items():
        pause()
        found = series.histograms[family.which]
        texts = histogram_texts(family.name, model, version, family.which)
        traced = family.traced(series)
        if traced:
            behind = {place: example(one) for place, one in traced.items()}
            yield histogram_lines(texts, found, behind)
        else:
            yield unchanged(texts, found)
        yield f"{texts[-1]} {go_float(series.created)}\n"


def histogram_lines(texts: Texts, found: Distribution, behind: Mapping[int, str]) -> str:
    """Return the lines of one histogram, with what stands behind its buckets, by their place."""
    lines, below = list[str](), 0
    for place, count in enumerate(found.counts):
        below += count
        number = f"{below}.0" if below < EXACT else go_float(below)
        lines.append(f"{texts[place]} {number}{behind.get(place, '')}\n")
    *_, count_text, sum_text, _ = texts
    return "".join(
        [*lines, f"{count_text} {go_float(below)}\n", f"{sum_text} {go_float(found.total)}\n"]
    )


@lru_cache(MOST_LINES)
def unchanged(texts: Texts, found: Distribution) -> str:
    """Return the lines of one histogram: of most of many models, they are those of last time."""
    return histogram_lines(texts, found, {})


def told(traced: TracedRequest) -> str:
    """Return what stands behind a bucket with an example."""
    value = go_float(traced.seconds)
    return f' # {{trace_id="{traced.trace}"}} {value} {traced.wall}'


def untold(_: TracedRequest) -> str:
    """Return nothing."""
    return ""


@lru_cache(MOST_LABELS)
def labelled(name: str, labels: Labels) -> str:
    """Return a name with its labels, in the order of theirs."""
    written = ",".join(f'{label}="{escaped(value)}"' for label, value in sorted(labels))
    return f"{name}{{{written}}}"


@lru_cache(MOST_HISTOGRAMS)
def histogram_texts(name: str, model: str, version: int, which: int) -> Texts:
    """Return the names with labels of all samples of a histogram of one model version."""
    labels = labels_of(model, version)
    bounds = [str(bound) for bound in (*BOUNDS[which], "+Inf")]
    write = labelled.__wrapped__
    found = [write(f"{name}_bucket", tuple({**labels, "le": bound}.items())) for bound in bounds]
    more = [write(f"{name}{end}", tuple(labels.items())) for end in ("_count", "_sum", APART)]
    return (*found, *more)


def escaped(value: str) -> str:
    """Return the value of a label as it is written."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
