"""A model as a release: added to a store, promoted, served, asked."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inferd_client import Client

from examples.images.data import Array
from examples.images.measuring import BATCH, INPUT, OUTPUT

NAME = "images"
PATIENCE_S = 60.0
LEAST_ACCURACY = 0.95


def inferd(*arguments: str | Path) -> None:
    """Run a command of inferd, and show it.

    Raises:
        subprocess.CalledProcessError: it failed, and said why.
    """
    print("$ inferd", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "inferd_client", *arguments], check=True)


def release(store: Path, model: Path, golden: Path, reference: Path, accuracy: float) -> None:
    """Add a model to a store, and promote it to production.

    Raises:
        subprocess.CalledProcessError: it was refused.
    """
    files = ("--golden", golden, "--reference", reference)
    bound = ("--metric", f"accuracy={accuracy:.4f}", "--require", f"accuracy>={LEAST_ACCURACY}")
    # INT8 rounds differently on another processor.
    inferd("models", "add", NAME, model, *files, *bound, "--tolerance", "0.5", "--store", store)
    inferd("models", "promote", NAME, "1", "--store", store)


def accuracy_served(store: Path, images: Array, labels: Array) -> float:
    """Serve a store, ask for the class of every image, and return how many answers are right."""
    with served(store) as url, Client(url) as client:
        client.wait_until_ready(PATIENCE_S)
        right = 0
        for start in range(0, len(images), BATCH):
            rows = slice(start, start + BATCH)
            answer = client.infer(NAME, **{INPUT: images[rows]})[OUTPUT]
            right += int((answer.argmax(axis=1) == labels[rows]).sum())
    return right / len(images)


@contextmanager
def served(store: Path) -> Iterator[str]:
    """Give the address of a server of a store, which ends with this."""
    port = free_port()
    flags = ["--host", "127.0.0.1", "--grpc-port", str(port), "--metrics-port", str(free_port())]
    command = [sys.executable, "-m", "inferd_client", "serve", store, *flags]
    print("$ inferd serve", store, *flags, flush=True)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()


def free_port() -> int:
    """Return a port of this machine that nobody has now."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
    return port
