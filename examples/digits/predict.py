"""Classify the 360 held-out digits on a running server, streamed and in single calls.

    python examples/digits/predict.py --url 127.0.0.1:8001

The exit code is 1 if either way gets less than 97 % of them right.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from inferd_client import Client, Request

Array: TypeAlias = npt.NDArray[Any]

HELDOUT = Path(__file__).with_name("heldout.npz")
# A server that was started together with this may still be loading.
PATIENCE_S = 30.0
LEAST_ACCURACY = 0.97
SHADES = " .:-=+*#%@"
WHITE = 16


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one pass: predictions int64 [n] and latencies float64 [n] in seconds."""

    predictions: Array
    latencies: Array


def load_heldout() -> tuple[Array, Array]:
    """Return images float32 [360, 8, 8] of pixels 0 to 16 and labels int64 [360]."""
    with np.load(HELDOUT) as data:
        return data["images"].astype(np.float32), data["labels"]


def accuracy(predictions: Array, labels: Array) -> float:
    """Return the share of predictions that equal their labels."""
    return float(np.mean(predictions == labels))


def milliseconds(latencies: Array, percent: float) -> float:
    """Return a percentile of latencies in seconds, in milliseconds."""
    return float(np.percentile(latencies, percent)) * 1e3


def draw(image: Array) -> str:
    """Return an image [8, 8] of pixels 0 to 16 as eight lines, two characters a pixel."""
    levels = np.clip(image / WHITE * (len(SHADES) - 1), 0, len(SHADES) - 1).round().astype(int)
    return "\n".join("".join(SHADES[level] * 2 for level in row) for row in levels)


def summary(way: str, outcome: Outcome, labels: Array) -> str:
    """Return one line: how it was sent, accuracy, median and 99th percentile latency."""
    return (
        f"{way}: accuracy {accuracy(outcome.predictions, labels):.4f},"
        f" p50 {milliseconds(outcome.latencies, 50):.2f} ms,"
        f" p99 {milliseconds(outcome.latencies, 99):.2f} ms"
    )


def predict_streamed(client: Client, images: Array) -> Outcome:
    """Send the images one by one over a stream; answers may come in any order."""
    sent, latencies = np.zeros(len(images)), np.zeros(len(images))
    predictions = np.full(len(images), -1)

    def requests() -> Iterator[Request]:
        for index, image in enumerate(images):
            sent[index] = time.monotonic()
            yield Request("digits", {"image": image[np.newaxis]}, id=str(index))

    for answer in client.stream(requests()):
        index = int(answer.id)
        latencies[index] = time.monotonic() - sent[index]
        predictions[index] = int(np.argmax(answer.result()["probabilities"]))
    return Outcome(predictions, latencies)


def predict_unary(client: Client, images: Array, threads: int) -> Outcome:
    """Send each image in a call of its own, from several threads."""

    def call(image: Array) -> tuple[int, float]:
        started = time.monotonic()
        probabilities = client.infer("digits", image=image[np.newaxis])["probabilities"]
        return int(np.argmax(probabilities)), time.monotonic() - started

    with ThreadPoolExecutor(threads) as pool:
        answers = list(pool.map(call, images))
    return Outcome(np.array([a for a, _ in answers]), np.array([b for _, b in answers]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Classify, report, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="127.0.0.1:8001", help="host:port of the server")
    parser.add_argument("--threads", type=int, default=8, help="callers in the unary pass")
    options = parser.parse_args(arguments)
    images, labels = load_heldout()
    with Client(options.url) as client:
        client.wait_until_ready(PATIENCE_S)
        streamed = predict_streamed(client, images)
        unary = predict_unary(client, images, options.threads)
    print(f"{draw(images[0])}\npredicted {unary.predictions[0]}, labelled {labels[0]}\n")
    print(summary(f"{len(images)} images streamed", streamed, labels))
    print(summary(f"{len(images)} calls from {options.threads} threads", unary, labels))
    worst = min(accuracy(outcome.predictions, labels) for outcome in (streamed, unary))
    return 0 if worst >= LEAST_ACCURACY else 1


if __name__ == "__main__":
    sys.exit(main())
