"""L0_string_io and L0_nullchar_string: bytes of every kind come back whole."""

from __future__ import annotations

import numpy as np
from tritonclient.grpc import InferenceServerClient

from .expectation import Suite, expect, inputs_of, streamed

suite = Suite()
TEXTS = {
    "text beyond ASCII": ["\u00e4", "\u4e2d\u6587", "\U0001f600", "caf\u00e9"],
    "empty": ["", "", "", ""],
    "NUL inside": ["a\0b", "\0\0c", "d", "\0x\0y"],
    "NUL at the end": ["a\0", "b\0\0", "\0", "c"],
    "long": ["x" * 100_000, "y" * 70_000, "z", ""],
    "numbers as text": ["1", "-2", "3.5", "1e9"],
}


def as_bytes(texts: list[str]) -> np.ndarray:
    """Return one row of texts as UTF-8."""
    return np.array([[text.encode() for text in texts]], object)


def comes_back(client: InferenceServerClient, texts: list[str], as_object: bool) -> None:
    """Check a row that is given as bytes, or as Python's own text."""
    given = as_bytes(texts) if as_object else np.array([texts])
    inputs = inputs_of(given.astype(object) if not as_object else given)
    for result in (
        client.infer("texts", inputs),
        streamed(client, "texts", inputs=inputs),
    ):
        found = result.as_numpy("OUTPUT0")
        expect(found.tolist() == as_bytes(texts).tolist(), found)


for name, texts in TEXTS.items():
    suite.add(f"{name}, bytes", comes_back, texts, True)
    if not any(text.endswith("\0") for text in texts):
        suite.add(f"{name}, text", comes_back, texts, False)


@suite.expects("a batch of rows of texts comes back in order")
def rows(client: InferenceServerClient) -> None:
    array = np.array([[f"{i}-{j}".encode() for j in range(4)] for i in range(8)], object)
    found = client.infer("texts", inputs_of(array)).as_numpy("OUTPUT0")
    expect(found.tolist() == array.tolist(), found)


@suite.expects("bytes that are no UTF-8 come back")
def no_text(client: InferenceServerClient) -> None:
    array = np.array([[b"\xff\xfe", b"\x80", b"\xc3", b"\xf0\x9f"]], object)
    found = client.infer("texts", inputs_of(array)).as_numpy("OUTPUT0")
    expect(found.tolist() == array.tolist(), found)


if __name__ == "__main__":
    suite.run()
