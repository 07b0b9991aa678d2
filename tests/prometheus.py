"""A real Prometheus, or a program beside it, and what it answers."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from tests.ports import free_port

WITHIN = 60.0
"""Seconds for whatever is waited for: all is scraped and evaluated each second."""


@contextmanager
def prometheus(folder: Path, config: dict[str, Any]) -> Iterator[str]:
    """Run Prometheus in a folder until the end; yields its URL."""
    often = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    with started("prometheus", folder, {"global": often, **config}, "--storage.tsdb.path") as url:
        yield url


@contextmanager
def alertmanager(folder: Path, config: dict[str, Any]) -> Iterator[str]:
    """Run Alertmanager in a folder until the end; yields its URL."""
    alone = "--cluster.listen-address="
    with started("prometheus-alertmanager", folder, config, "--storage.path", alone) as url:
        yield url


@contextmanager
def started(
    program: str, folder: Path, config: dict[str, Any], storage: str, *more: str
) -> Iterator[str]:
    """Run a program from when it is ready until the end; yields its URL."""
    address = f"127.0.0.1:{free_port()}"
    file, log = folder / f"{program}.yaml", folder / f"{program}.log"
    file.write_text(yaml.safe_dump(config))
    places = (f"--config.file={file}", f"{storage}={folder / program}")
    command = (program, *places, f"--web.listen-address={address}", *more)
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as one:
        try:
            until(lambda: answers(f"http://{address}/-/ready"), log.read_text)
            yield f"http://{address}"
        finally:
            one.terminate()


def answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url) as answer:
        return bool(answer.status == 200)
    return False


def ask(url: str, expression: str) -> Sequence[Any]:
    """Return the samples that an expression gives now."""
    query = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"{url}/api/v1/query?{query}") as answer:
        found: Sequence[Any] = json.load(answer)["data"]["result"]
    return found


def until(done: Callable[[], bool], why: Callable[[], object]) -> None:
    """Wait until something is so; else fail, and say why."""
    end = time.monotonic() + WITHIN
    wait = 0.05
    while not done():
        assert time.monotonic() < end, why()
        time.sleep(wait)
