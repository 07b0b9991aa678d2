"""The text of /metrics: what prometheus_client would write, in a fraction of its time.

With many models nearly all lines are of model versions, and of most nothing changed since the last
answer: their text is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from inferd_server.monitoring.request_metrics import (
    Family,
    Histogram,
    HistogramContent,
    Values,
    labels_of,
)
from inferd_server.monitoring.series import BOUNDS, TracedRequest
from inferd_server.threads import Pauses

Labels: TypeAlias = tuple[tuple[str, str], ...]
Texts: TypeAlias = tuple[str, ...]
"""Names with labels of one histogram's samples: its buckets, then count, sum and `_created`."""
Lines: TypeAlias = tuple[str, str]
"""Lines of a metric, and those of `_created` that stand below all of them."""
MOST_HISTOGRAMS, MOST_LABELS, MOST_NUMBERS = 16_384, 65_536, 512
"""Texts that are kept; those used longest ago are made anew."""
EXACT = 1_000_000
"""From here on a number is written with an exponent."""
go_float: Callable[[float], str] = lru_cache(MOST_NUMBERS)(floatToGoString)
"""Writes a number as Go does; most are those of last time, or of another model."""
APART = "_created"
"""What the older format knows as gauges of their own, which come last."""
OLDER_KINDS: Mapping[str, str] = {"info": "gauge"}
OLDER_NAMES: Mapping[str, str] = {"counter": "{}_total", "info": "{}_info"}
"""Kinds and names in the older format, by kind."""


def told(traced: TracedRequest) -> str:
    """Return what stands behind a bucket with an example."""
    value = go_float(traced.seconds)
    return f' # {{trace_id="{traced.trace}"}} {value} {traced.wall}'


@dataclass(frozen=True, slots=True)
class TextFormat:
    """What differs between the two formats of text."""

    names: Mapping[str, str]
    """Of metrics, by their kind."""
    kinds: Mapping[str, str]
    """Where they are called otherwise."""
    example: Callable[[TracedRequest], str] | None
    """Returns what stands behind a bucket with an example; None: nothing does."""
    apart: str
    """How names end whose lines stand below the others of their metric; empty: none do."""
    end: str
    """The last line."""


OPENMETRICS = TextFormat({}, {}, told, "", "# EOF\n")
"""Source: OpenMetrics 1.0."""
PLAIN = TextFormat(OLDER_NAMES, OLDER_KINDS, None, APART, "")
"""The text format before OpenMetrics, 0.0.4, which knows no exemplars."""


class TextWriter:
    """Writes /metrics in one format. On one thread."""

    def __init__(self, text_format: TextFormat) -> None:
        self._format = text_format
        # By name of a metric, and what a part of it is about: what that said, and its lines.
        self._kept: dict[str, dict[tuple[Any, ...], tuple[object, Lines]]] = {}

    def write(self, families: Iterable[Family]) -> Sequence[bytes]:
        """Return the text in parts."""
        pause = Pauses()
        return [*(self._part(family, pause) for family in families), self._format.end.encode()]

    def _part(self, family: Family, pause: Callable[[], None]) -> bytes:
        kind, text = family.type, family.documentation
        name = self._format.names.get(kind, "{}").format(family.name)
        found, below = [heading(name, text, self._format.kinds.get(kind, kind))], list[str]()
        for lines, apart in self._lines(family):
            pause()
            found.append(lines)
            below.append(apart)
        if any(below):
            found += (heading(f"{family.name}{APART}", text, "gauge"), *below)
        return "".join(found).encode()

    def _lines(self, family: Family) -> Iterator[Lines]:
        if isinstance(family, Metric):
            for sample in family.samples:
                yield self._sorted(family.name, [sample_line(sample)])
            return
        before, now = self._kept.get(family.name, {}), dict[tuple[Any, ...], tuple[object, Lines]]()
        for about, content in family.contents.items():
            kept = before.get(about)
            if kept is None or kept[0] != content:
                kept = content, self._sorted(family.name, self._made(family, about, content))
            now[about] = kept
            yield kept[1]
        self._kept[family.name] = now

    def _made(
        self, family: Histogram | Values[Any, Any], about: tuple[Any, ...], content: Any
    ) -> Iterable[str]:
        if isinstance(family, Histogram):
            texts = histogram_texts(family.name, *about, family.which)
            return histogram_lines(texts, content, self._format.example)
        return map(sample_line, family.samples(about, content))

    def _sorted(self, name: str, lines: Iterable[str]) -> Lines:
        if not self._format.apart:
            return "".join(lines), ""
        found, below, apart = list[str](), list[str](), f"{name}{self._format.apart}"
        for line in lines:
            (below if line.startswith(apart) else found).append(line)
        return "".join(found), "".join(below)


def heading(name: str, text: str, kind: str) -> str:
    """Return what stands above a metric; our texts need no escapes."""
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def sample_line(sample: Sample) -> str:
    """Return the line of a sample."""
    labels = sample.labels
    text = labelled(sample.name, tuple(labels.items())) if labels else sample.name
    return f"{text} {go_float(sample.value)}\n"


def histogram_lines(
    texts: Texts, counted: HistogramContent, example: Callable[[TracedRequest], str] | None
) -> Sequence[str]:
    """Return the lines of a histogram of one model version, examples behind their buckets."""
    found, created, traced = counted
    behind = {place: example(one) for place, one in traced.items()} if example else {}
    lines, below = list[str](), 0
    for place, count in enumerate(found.counts):
        below += count
        number = f"{below}.0" if below < EXACT else go_float(below)
        lines.append(f"{texts[place]} {number}{behind.get(place, '')}\n")
    values = zip(texts[-3:], (below, found.total, created), strict=True)
    return [*lines, *(f"{text} {go_float(value)}\n" for text, value in values)]


@lru_cache(MOST_LABELS)
def labelled(name: str, labels: Labels) -> str:
    """Return a name with its labels, in the order of theirs."""
    return f"{name}{{{written(labels)}}}"


def written(labels: Labels) -> str:
    """Return labels as they are written."""
    return ",".join([f'{label}="{escaped(value)}"' for label, value in sorted(labels)])


@lru_cache(MOST_HISTOGRAMS)
def histogram_texts(name: str, model: str, version: int, which: int) -> Texts:
    """Return the names with labels of all samples of a histogram of one model version."""
    labels = written(tuple(labels_of(model, version).items()))
    # As the other labels' names stand behind it.
    buckets = [f'{name}_bucket{{le="{bound}",{labels}}}' for bound in (*BOUNDS[which], "+Inf")]
    return (*buckets, *[f"{name}{end}{{{labels}}}" for end in ("_count", "_sum", APART)])


def escaped(value: str) -> str:
    """Return the value of a label as it is written."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
