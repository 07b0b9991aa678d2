"""The shipped digits model is what its README says, and training gives it again."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from inferd_engines.engine import EngineOptions, Tensor
from inferd_engines.onnx import open_onnx
from onnx import numpy_helper

from examples.digits import train


def heldout() -> tuple[train.Array, train.Array]:
    with np.load(train.HELDOUT) as data:
        return data["images"].astype(np.float32), data["labels"]


def test_the_shipped_model_reads_the_heldout_images() -> None:
    images, labels = heldout()
    assert images.shape == (360, 8, 8)
    assert labels.shape == (360,)
    engine = open_onnx(train.MODEL, EngineOptions())
    probabilities = engine.run({"image": images}, {}, 360)["probabilities"]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert np.mean(probabilities.argmax(axis=1) == labels) >= train.LEAST_ACCURACY


def test_the_shipped_model_has_the_documented_signature_and_size() -> None:
    signature = open_onnx(train.MODEL, EngineOptions()).signature
    float32 = np.dtype(np.float32)
    assert signature.inputs == (Tensor("image", float32, (None, 8, 8), ("batch", "", "")),)
    assert signature.outputs == (Tensor("probabilities", float32, (None, 10), ("batch", "")),)
    assert train.MODEL.stat().st_size < 300_000


def test_the_shipped_settings_label_every_output_column() -> None:
    settings = yaml.safe_load((train.MODEL.parents[1] / "model.yaml").read_text())
    assert settings["labels"] == {"probabilities": [str(digit) for digit in range(10)]}
    assert max(settings["warm_up"]) <= settings["max_batch_size"]


def test_the_split_holds_out_the_committed_images_and_shares_none() -> None:
    images, labels = heldout()
    split = train.load_split()
    np.testing.assert_array_equal(split.heldout_images, images)
    np.testing.assert_array_equal(split.heldout_labels, labels)
    assert len(split.train_labels) == 1437
    trained = {image.tobytes() for image in split.train_images}
    assert not [image for image in split.heldout_images if image.tobytes() in trained]


def test_shifting_keeps_the_image_and_moves_it_each_way() -> None:
    image = np.zeros((1, 8, 8), dtype=np.float32)
    image[0, 4, 4] = 16
    moved = {tuple(np.argwhere(shifted)[0]) for shifted in train.shifted(image)}
    assert moved == {(y, x) for y in (3, 4, 5) for x in (3, 4, 5)}


@pytest.mark.slow
def test_training_again_gives_the_shipped_model(tmp_path: Path) -> None:
    paths = tmp_path / "model.onnx", tmp_path / "heldout.npz"
    assert train.main(["--model", str(paths[0]), "--heldout", str(paths[1])]) == 0
    again, shipped = onnx.load(paths[0]), onnx.load(train.MODEL)
    assert again.graph.node == shipped.graph.node
    distance = size = 0.0
    pairs = zip(again.graph.initializer, shipped.graph.initializer, strict=True)
    for new, old in pairs:
        first, second = numpy_helper.to_array(new), numpy_helper.to_array(old)
        distance += float(np.square(first - second).sum())
        size += float(np.square(second).sum())
    # On another kind of CPU sums are rounded differently; on the same one this is 0.
    assert math.sqrt(distance / size) < 0.05
