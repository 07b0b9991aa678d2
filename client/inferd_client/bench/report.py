"""The figures of a run for people and for programs.

The JSON is one object:

    model, url            what was called
    concurrency, rate     requests in flight at most; requests a second, or null (closed loop)
    stream, per_stream    whether on streams; requests outstanding on each
    processes             that sent
    connections           of each process at most
    client                what sent: "fast", the own HTTP/2 client, or "grpc", grpc.aio
    client_reason         why not the fast one, where it was not for being told so
    rows                  rows of each request
    request_bytes         size of a serialised request
    requests, succeeded   answered in all; answered OK
    errors                count of the others by gRPC status code
    unsent                due in open loop, and never started because every place was busy
    different             answers unlike the first one of their process, ids aside; null where
                          nobody looked
    elapsed_s             from the first start to the last answer
    requests_per_s        successful ones
    rows_per_s            likewise
    latency_ms            mean, min, p50, p90, p99, p99.9 and max of the successful ones, by
                          nearest rank; in open loop counted from the moment the request was
                          due; empty if none succeeded
    client_cores          processor cores that the load generator itself kept busy
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from inferd_client.bench.plan import Plan
from inferd_client.bench.samples import Summary

# Of one process: above this the generator, not the server, may set the pace.
_BUSY = 0.9


@dataclass(frozen=True, slots=True)
class Setting:
    """What was run, for the report."""

    model: str
    plan: Plan
    processes: int
    rows: int
    client_reason: str = ""


def as_json(setting: Setting, summary: Summary) -> dict[str, Any]:
    """Return what `json.dumps` takes."""
    return {
        "model": setting.model,
        "url": setting.plan.address,
        "concurrency": setting.plan.concurrency,
        "rate": setting.plan.rate,
        "stream": setting.plan.stream,
        "per_stream": setting.plan.per_stream,
        "processes": setting.processes,
        "connections": setting.plan.connections,
        "client": setting.plan.client,
        "client_reason": setting.client_reason,
        "rows": setting.rows,
        "request_bytes": len(setting.plan.request),
        **asdict(summary),
    }


def as_text(setting: Setting, summary: Summary) -> str:
    """Return a few lines to read."""
    latency = "  ".join(f"{name} {value:.3f}" for name, value in summary.latency_ms.items())
    lines = [
        f"{summary.requests_per_s:.1f} requests/s  {summary.rows_per_s:.1f} rows/s",
        f"latency in ms: {latency or 'none, as nothing succeeded'}",
        f"{summary.succeeded} of {summary.requests} succeeded in {summary.elapsed_s:.1f} s",
        *(f"{count} failed with {code}" for code, count in summary.errors.items()),
    ]
    if summary.different is not None:
        lines.append(f"{summary.different} answers differ from the first")
    if summary.unsent:
        lines.append(f"{summary.unsent} were due and never sent: every place was busy")
    if summary.client_cores > _BUSY * setting.processes:
        lines.append("the load generator was busy all the time: the server may do more")
    reason = f": {setting.client_reason}" if setting.client_reason else ""
    lines.append(f"sent by the {setting.plan.client} client{reason}")
    return "\n".join(lines)
