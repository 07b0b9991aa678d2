"""inferd bench: send load to a model and measure how it copes."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from inferd.tensors import Array
from tqdm import tqdm

from inferd_client import requests
from inferd_client.bench import processes, report
from inferd_client.bench.choice import Choice, choose, is_installed
from inferd_client.bench.plan import Plan
from inferd_client.bench.samples import Summary, summarise
from inferd_client.client import Client
from inferd_client.commands import connect
from inferd_client.commands.bench_flags import configure
from inferd_client.errors import InferdError, InvalidInput
from inferd_client.information import ModelMetadata
from inferd_client.inputs import arrays, guess
from inferd_client.requests import Request

HELP = "send load to a model and measure throughput and latency"

__all__ = ["HELP", "configure", "run"]


def run(arguments: argparse.Namespace) -> int:
    """Run the load, report it, and return 1 if nothing succeeded or answers differ."""
    with connect.client(arguments) as client:
        metadata = needed(client.metadata(arguments.model, arguments.version), client, arguments)
    inputs = _inputs(arguments, metadata)
    chosen = _choice(arguments)
    plan = _plan(arguments, inputs, chosen.name)
    rows = rows_of(metadata, inputs)
    setting = report.Setting(arguments.model, plan, arguments.processes, rows, chosen.reason)
    summary = _measure(setting)
    _report(arguments.json, setting, summary)
    hint = "" if summary.succeeded else _guess(arguments, metadata)
    if hint:
        print(f"inferd bench: nothing succeeded; {hint}", file=sys.stderr)
    return 0 if summary.succeeded and not summary.different else 1


def _choice(arguments: argparse.Namespace) -> Choice:
    needs = "--per-stream" if arguments.per_stream > 1 else "--check" if arguments.check else ""
    if arguments.per_stream > 1 and not arguments.stream:
        raise InvalidInput("--per-stream needs --stream")
    try:
        return choose(
            arguments.client,
            arguments.url,
            installed=is_installed(),
            needs=needs,
            secured=connect.secured(arguments),
        )
    except ValueError as error:
        raise InvalidInput(str(error)) from error


def _values(arguments: argparse.Namespace, metadata: ModelMetadata) -> list[tuple[str, str]]:
    given = dict(arguments.input)
    generated = [(info.name, "random") for info in metadata.inputs if info.name not in given]
    return [*given.items(), *generated]


def _inputs(arguments: argparse.Namespace, metadata: ModelMetadata) -> dict[str, Array]:
    values = _values(arguments, metadata)
    return arrays(metadata, values, dict(arguments.shape), arguments.batch)


def _guess(arguments: argparse.Namespace, metadata: ModelMetadata) -> str:
    return guess(metadata, _values(arguments, metadata), dict(arguments.shape))


def needed(metadata: ModelMetadata, client: Client, arguments: argparse.Namespace) -> ModelMetadata:
    """Return the metadata without inputs that may be left out, and that nobody gives."""
    try:
        config = client.config(arguments.model, arguments.version)
    except InferdError:
        # A server that tells no configuration has no inputs of that kind.
        return metadata
    named = {name for name, _ in (*arguments.input, *arguments.shape)}
    left_out = {info.name for info in config.inputs if info.optional} - named
    inputs = tuple(info for info in metadata.inputs if info.name not in left_out)
    return replace(metadata, inputs=inputs)


def rows_of(metadata: ModelMetadata, inputs: dict[str, Array]) -> int:
    """Return the size of the batch dimension; 1 where the first dimension is not free."""
    for info in metadata.inputs:
        if info.shape and info.shape[0] is None and inputs[info.name].ndim:
            return len(inputs[info.name])
    return 1


def _plan(arguments: argparse.Namespace, inputs: dict[str, Array], client: str) -> Plan:
    request = Request(arguments.model, inputs, arguments.version)
    return Plan(
        address=arguments.url,
        request=requests.build(request).SerializeToString(),
        concurrency=arguments.concurrency,
        duration=arguments.duration,
        rate=arguments.rate,
        requests=arguments.requests,
        warmup=arguments.warmup,
        stream=arguments.stream,
        timeout=arguments.timeout,
        client=client,
        connections=arguments.connections,
        per_stream=arguments.per_stream,
        check=arguments.check,
        tls=connect.tls(arguments),
        metadata=connect.shown(arguments),
    )


def _measure(setting: report.Setting) -> Summary:
    plan = setting.plan
    total = plan.warmup + plan.duration
    with tqdm(total=total, unit="s", disable=not sys.stderr.isatty(), leave=False) as bar:

        def progress(seconds: float) -> None:
            bar.update(min(seconds, total) - bar.n)

        try:
            samples = processes.run(plan, setting.processes, progress)
        except (ValueError, OSError) as error:
            raise InvalidInput(str(error)) from error
    return summarise(samples, setting.rows)


def _report(target: str | None, setting: report.Setting, summary: Summary) -> None:
    text = json.dumps(report.as_json(setting, summary), indent=2)
    if target == "-":
        print(text)
        return
    print(report.as_text(setting, summary))
    if target:
        Path(target).write_text(text + "\n", encoding="utf-8")
