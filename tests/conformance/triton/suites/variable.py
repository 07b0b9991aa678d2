"""L0_infer_variable: dimensions that are free, of several sizes and ranks."""

from __future__ import annotations

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferRequestedOutput

from .expectation import Suite, expect, inputs_of
from .infer import best, cast, same
from .variable_shapes import SHAPES, variable_name

suite = Suite()
CLASSES = ("fff", "fii", "fll", "fil", "ffi", "iii", "iif")
MIXED = ("ffi", "iii", "iif")


def asked(client: InferenceServerClient, combination: str, rows: int, counts: tuple[int, int]):
    """Return the answer with so many classes of each output (0: as it is), and what is expected."""
    random = np.random.default_rng(rows)
    shape = (rows, *SHAPES[combination])
    first, second = random.integers(20, 40, shape), random.integers(0, 20, shape)
    wanted = [InferRequestedOutput(f"OUTPUT{i}", class_count=n) for i, n in enumerate(counts)]
    inputs = inputs_of(cast(first, combination[0]), cast(second, combination[0]))
    result = client.infer(variable_name(combination), inputs, outputs=wanted)
    return result, (first + second, first - second)


def tensors(client: InferenceServerClient, combination: str, rows: int) -> None:
    """Check both outputs as they are."""
    result, values = asked(client, combination, rows, (0, 0))
    for index, letter in enumerate(combination[1:]):
        same(result, f"OUTPUT{index}", cast(values[index], letter))


def classes(client: InferenceServerClient, combination: str, rows: int, mixed: bool) -> None:
    """Check the classes of the first output, and the second one as it is or likewise."""
    result, values = asked(client, combination, rows, (3, 0 if mixed else 3))
    best(result.as_numpy("OUTPUT0"), values[0].reshape(rows, -1))
    if mixed:
        same(result, "OUTPUT1", cast(values[1], combination[2]))
    else:
        best(result.as_numpy("OUTPUT1"), values[1].reshape(rows, -1))


def another_size(client: InferenceServerClient) -> None:
    """Requests of other sizes follow each other."""
    for width in (16, 4, 32):
        array = np.ones((2, width), np.float32)
        result = client.infer("fff_variable_1", inputs_of(array, array))
        expect(result.as_numpy("OUTPUT0").shape == (2, width))


for combination in SHAPES:
    for rows in (1, 8):
        name = f"{combination}, a batch of {rows}"
        suite.add(name, tensors, combination, rows, quick=rows == 8)
        for mixed, chosen in ((False, CLASSES), (True, MIXED)):
            if combination in chosen:
                said = "classes beside a tensor" if mixed else "classes"
                suite.add(f"{name}: {said}", classes, combination, rows, mixed, quick=rows == 8)
suite.add("requests of other sizes follow each other", another_size)

if __name__ == "__main__":
    suite.run()
