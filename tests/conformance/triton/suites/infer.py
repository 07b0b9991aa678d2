"""L0_infer: every pair of datatypes, versions, classes, and parts of the outputs."""

from __future__ import annotations

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferRequestedOutput, InferResult

from .combinations import COMBINATIONS, QUICK, TYPES, model_name
from .expectation import Suite, expect, inputs_of, refused, row, streamed

suite = Suite()
FORMS = {"a batch of 1": 1, "a batch of 8": 8, "no batch": 0}


def cast(values: np.ndarray, letter: str) -> np.ndarray:
    """Return whole numbers as a datatype has them."""
    if letter == "o":
        return np.vectorize(lambda value: str(value).encode(), otypes=[object])(values)
    return values.astype(TYPES[letter])


def drawn(combination: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays of small whole numbers, whose sum and difference every datatype holds."""
    random = np.random.default_rng(len(combination) + rows)
    shape = (rows, 16) if rows else (16,)
    first = random.integers(20, 40, shape)
    return first, random.integers(0, 20, shape)


def same(result: InferResult, name: str, expected: np.ndarray) -> None:
    """Check one output: datatype, shape and every value."""
    found = result.as_numpy(name)
    expect(found is not None and found.dtype == expected.dtype, f"{name} is {found}")
    expect(np.array_equal(found, expected), f"{name} is {found}")


def computes(
    client: InferenceServerClient, combination: str, rows: int, wanted: tuple[int, ...]
) -> None:
    """Ask once, and once over a stream, for some of the outputs."""
    given, *outputs = combination
    first, second = drawn(combination, rows)
    expected = [cast(first + second, outputs[0]), cast(first - second, outputs[1])]
    asked = {
        "model_name": model_name(combination, batched=rows > 0),
        "inputs": inputs_of(cast(first, given), cast(second, given)),
        "outputs": [InferRequestedOutput(f"OUTPUT{index}") for index in wanted],
    }
    model = asked.pop("model_name")
    for result in (client.infer(model, **asked), streamed(client, str(model), **asked)):
        names = [output.name for output in result.get_response().outputs]
        expect(names == [f"OUTPUT{index}" for index in wanted], names)
        for index in wanted:
            same(result, f"OUTPUT{index}", expected[index])


for combination in COMBINATIONS:
    for form, rows in FORMS.items():
        for wanted in ((0, 1), (0,), (1,)):
            names = " and ".join(f"OUTPUT{index}" for index in wanted)
            quick = combination in QUICK and len(wanted) == 2
            name = f"{combination}, {form}: {names}"
            suite.add(name, computes, combination, rows, wanted, quick=quick)


def classes(client: InferenceServerClient, combination: str, mixed: bool) -> None:
    """Ask for the best classes of an output, and for the other one as it is or likewise."""
    first, second = drawn(combination, 8)
    given, *outputs = combination
    wanted = [InferRequestedOutput("OUTPUT0", class_count=3)]
    wanted.append(InferRequestedOutput("OUTPUT1", class_count=0 if mixed else 3))
    inputs = inputs_of(cast(first, given), cast(second, given))
    result = client.infer(model_name(combination, batched=True), inputs, outputs=wanted)
    best(result.as_numpy("OUTPUT0"), first + second)
    if mixed:
        same(result, "OUTPUT1", cast(first - second, outputs[1]))
    else:
        best(result.as_numpy("OUTPUT1"), first - second)


def best(found: np.ndarray, scores: np.ndarray) -> None:
    """Check the best three of each row: value:index, larger ones first."""
    for texts, values in zip(found.tolist(), scores, strict=True):
        parts = [text.decode().split(":") for text in texts]
        ranked = np.sort(values)[::-1][:3].tolist()
        expect([float(part[0]) for part in parts] == ranked, texts)
        expect(all(values[int(part[1])] == float(part[0]) for part in parts), texts)


for combination in ("bbb", "sss", "iii", "lll", "fff", "iff"):
    for mixed in (False, True):
        name = f"{combination}: {'classes beside a tensor' if mixed else 'classes of both'}"
        suite.add(name, classes, combination, mixed, quick=combination in QUICK)


def versions(client: InferenceServerClient, model: str, served: dict[str, float]) -> None:
    """Check which versions answer, each with its own factor, and that others are refused."""
    for version in ("1", "2", "3"):
        ready = client.is_model_ready(model, version)
        expect(ready == (version in served), f"version {version}: {ready}")
        if version in served:
            found = client.infer(model, row(1, 1, 1, 1), version).as_numpy("OUTPUT0")
            expect(found.tolist() == [[served[version]] * 4], found)
        else:
            refused(client.infer, model, row(1, 1, 1, 1), version)
    newest = client.infer(model, row(1, 1, 1, 1)).as_numpy("OUTPUT0")
    expect(newest.tolist() == [[max(served.values())] * 4], newest)


suite.add("the latest version serves alone", versions, "latest", {"3": 4.0})
suite.add("all versions serve", versions, "all", {"1": 2.0, "2": 3.0, "3": 4.0})
suite.add("one version by its number serves alone", versions, "specific_1", {"1": 2.0})
suite.add("two versions by their numbers serve", versions, "specific_1_3", {"1": 2.0, "3": 4.0})
suite.add("the latest two versions serve", versions, "latest_2", {"2": 3.0, "3": 4.0})

if __name__ == "__main__":
    suite.run()
