"""L0_infer_zero: tensors of no elements come back with their shapes."""

from __future__ import annotations

import numpy as np
from tritonclient.grpc import InferenceServerClient

from .expectation import Suite, expect, inputs_of, streamed
from .zero_shapes import SHAPES, Shapes, zero_name

suite = Suite()
KINDS = {"f": np.float32, "h": np.float16, "o": np.object_, "?": np.bool_}


def filled(shape: tuple[int, ...], letter: str) -> np.ndarray:
    """Return an array of a shape with values that differ."""
    values = np.arange(int(np.prod(shape))).reshape(shape)
    if letter == "o":
        return np.vectorize(lambda value: str(value).encode(), otypes=[object])(values)
    return values.astype(KINDS[letter])


def comes_back(client: InferenceServerClient, model: str, letter: str, shapes: Shapes) -> None:
    """Check every output against its input, of a call and of a stream."""
    arrays = [filled(shape, letter) for shape in shapes]
    inputs = inputs_of(*arrays)
    for result in (
        client.infer(model, inputs),
        streamed(client, model, inputs=inputs),
    ):
        for index, array in enumerate(arrays):
            found = result.as_numpy(f"OUTPUT{index}")
            expect(found.shape == array.shape, f"{found.shape} of {array.shape}")
            expect(np.array_equal(found, array), found)


for letter, cases in SHAPES.items():
    for shapes in cases:
        text = " ".join("x".join(map(str, shape)) for shape in shapes)
        for rows in (1, 8, 0):
            batched = tuple((rows, *shape) for shape in shapes) if rows else shapes
            name = f"{letter} {text}, {f'a batch of {rows}' if rows else 'no batch'}"
            model = zero_name(letter, shapes, batched=rows > 0)
            suite.add(name, comes_back, model, letter, batched, quick=rows == 8)

if __name__ == "__main__":
    suite.run()
