"""The report of a replay, for people and for programs.

The JSON is one object:

    requests              that were sent, or could not be
    agreed                answered as recorded, within the tolerances
    differed              answered otherwise
    failed                answered with an error
    not_compared          sent, of which no output was recorded as it was answered
    not_sent              with an input that was not recorded as it was sent
    elapsed_s             from the first request to the last answer
    late_s                the most by which a request came after its time; null without a pace
    different             of each that differed, the first ones: index in the recording from 0, id,
                          at (seconds since the epoch), model, version, and by output what is
                          different: what, largest, place, recorded, answered
    errors                of each that failed, likewise: index, id, at, model, version, error
    listed                how many different and errors have at most
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from inferd.recording import Recorded

from inferd_client.replay.comparing import Difference, Limits, differences
from inferd_client.replay.sending import Outcome


@dataclass(slots=True)
class Report:
    """Counts what came of the requests, and keeps the first that were not answered as recorded."""

    limits: Limits
    listed: int
    """How many are kept of each kind."""
    agreed: int = 0
    differed: int = 0
    failed: int = 0
    not_compared: int = 0
    not_sent: int = 0
    late: float = 0.0
    elapsed: float = 0.0
    different: list[tuple[int, Recorded, Sequence[Difference]]] = field(default_factory=list)
    errors: list[tuple[int, Recorded, str]] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """All that the recording had."""
        found = self.agreed + self.differed + self.failed
        return found + self.not_compared + self.not_sent

    @property
    def succeeded(self) -> bool:
        """True if something was compared, and nothing was otherwise than recorded."""
        return bool(self.agreed) and not self.differed and not self.failed

    def add(self, outcome: Outcome) -> None:
        """Take in what became of a request."""
        request = outcome.request
        self.late = max(self.late, outcome.late)
        if outcome.outputs is None:
            self.failed += 1
            if len(self.errors) < self.listed:
                text = f"{type(outcome.error).__name__}: {outcome.error}"
                self.errors.append((outcome.index, bare(request), text))
            return
        recorded = comparable(request)
        found = differences(recorded, outcome.outputs, self.limits)
        if not recorded:
            self.not_compared += 1
        elif not found:
            self.agreed += 1
        else:
            self.differed += 1
            if len(self.different) < self.listed:
                self.different.append((outcome.index, bare(request), found))


def comparable(request: Recorded) -> dict[str, Any]:
    """Return the outputs that were recorded as they were answered."""
    return {
        name: one for name, one in request.outputs.items() if name not in request.masked_outputs
    }


def bare(request: Recorded) -> Recorded:
    """Return a request without its tensors, which a list of many must not hold."""
    return Recorded(request.model, request.version, request.id, request.at, {}, {})


def as_json(report: Report, paced: bool) -> dict[str, Any]:
    """Return what `json.dumps` takes."""
    return {
        "requests": report.requests,
        "agreed": report.agreed,
        "differed": report.differed,
        "failed": report.failed,
        "not_compared": report.not_compared,
        "not_sent": report.not_sent,
        "elapsed_s": report.elapsed,
        "late_s": report.late if paced else None,
        "different": [
            {**_who(index, request), "outputs": [_told(one) for one in found]}
            for index, request, found in sorted(report.different, key=lambda one: one[0])
        ],
        "errors": [
            {**_who(index, request), "error": text}
            for index, request, text in sorted(report.errors, key=lambda one: one[0])
        ],
        "listed": report.listed,
    }


def as_text(report: Report, paced: bool) -> str:
    """Return the counts, and a line for each request that is listed."""
    lines = [
        f"{report.requests} requests in {report.elapsed:.1f} s: {report.agreed} agreed, "
        f"{report.differed} differed, {report.failed} failed"
    ]
    if report.not_compared:
        lines.append(f"{report.not_compared} not compared: none of their outputs was recorded")
    if report.not_sent:
        lines.append(f"{report.not_sent} not sent: an input was not recorded as it was sent")
    if paced and report.late > 1:
        lines.append(f"up to {report.late:.1f} s late: a higher --concurrency may help")
    listed = [(index, _difference_line(*one)) for index, *one in report.different]
    listed += [(index, f"{_name(request)}: {text}") for index, request, text in report.errors]
    lines += [f"#{index} {text}" for index, text in sorted(listed)]
    left = report.differed + report.failed - len(listed)
    return "\n".join(lines + ([f"and {left} more (--list shows more)"] if left else []))


def _difference_line(request: Any, found: Any) -> str:
    return f"{_name(request)}: " + "; ".join(map(_sentence, found))


def _name(request: Recorded) -> str:
    return f"{request.model}/{request.version}" + (f" id {request.id!r}" if request.id else "")


def _sentence(one: Difference) -> str:
    if not one.recorded and not one.answered:
        return f"{one.output}: {one.what}"
    by = f", {one.largest:.3g} apart" if math.isfinite(one.largest) else ""
    return (
        f"{one.output}: {one.what}, most at {list(one.place)}: {one.recorded} recorded, "
        f"{one.answered} answered{by}"
    )


def _who(index: int, request: Recorded) -> dict[str, Any]:
    return {
        "index": index,
        "id": request.id,
        "at": request.at,
        "model": request.model,
        "version": request.version,
    }


def _told(one: Difference) -> dict[str, Any]:
    return {
        "output": one.output,
        "what": one.what,
        # JSON has no number for it.
        "largest": one.largest if math.isfinite(one.largest) else None,
        "place": list(one.place),
        "recorded": one.recorded,
        "answered": one.answered,
    }
