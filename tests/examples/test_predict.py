"""The digits client counts, times and draws what it says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_client import Client, Request

from examples.digits import predict


def test_accuracy_is_the_share_of_right_answers() -> None:
    assert predict.accuracy(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5])) == 0.75


def test_percentiles_are_in_milliseconds() -> None:
    latencies = np.arange(101) / 1000
    assert predict.milliseconds(latencies, 50) == pytest.approx(50)
    assert predict.milliseconds(latencies, 99) == pytest.approx(99)


def test_paper_is_blank_and_ink_is_dark() -> None:
    image = np.zeros((8, 8), dtype=np.float32)
    image[0, 0] = 16
    lines = predict.draw(image).split("\n")
    assert lines[0] == "@@" + " " * 14
    assert lines[1:] == [" " * 16] * 7


@given(st.floats(-1e6, 1e6))
def test_any_pixel_value_is_drawn(value: float) -> None:
    lines = predict.draw(np.full((8, 8), value)).split("\n")
    assert [len(line) for line in lines] == [16] * 8


def test_heldout_images_are_raw_pixels() -> None:
    images, labels = predict.load_heldout()
    assert (images.shape, images.dtype) == ((360, 8, 8), np.float32)
    assert images.max() == 16
    assert set(labels) == set(range(10))


def test_a_summary_names_accuracy_and_latency() -> None:
    outcome = predict.Outcome(np.array([1, 2]), np.array([0.001, 0.003]))
    line = predict.summary("2 calls", outcome, np.array([1, 1]))
    assert line == "2 calls: accuracy 0.5000, p50 2.00 ms, p99 2.98 ms"


IMAGES = np.arange(10.0).reshape(10, 1, 1) * np.ones((10, 8, 8))


@dataclass(frozen=True)
class Answer:
    """A double for a result, and for an item of a stream: certain of one class."""

    id: str
    label: int

    def result(self) -> Answer:
        return self

    def __getitem__(self, name: str) -> npt.NDArray[np.float64]:
        return np.eye(10)[[self.label]]


class PixelClient:
    """A double for the client: the first pixel is the class; streams answer backwards."""

    def infer(self, model: str, *, image: npt.NDArray[np.float64]) -> Answer:
        return Answer("", int(image[0, 0, 0]))

    def stream(self, requests: Iterable[Request]) -> list[Answer]:
        pixels = [(request.id, np.asarray(request.inputs["image"])) for request in requests]
        return [Answer(name, int(image[0, 0, 0])) for name, image in reversed(pixels)]


def test_unary_predictions_are_in_the_order_of_the_images() -> None:
    outcome = predict.predict_unary(cast(Client, PixelClient()), IMAGES, threads=4)
    assert outcome.predictions.tolist() == list(range(10))
    assert outcome.latencies.shape == (10,)


def test_streamed_answers_find_their_image_in_any_order() -> None:
    outcome = predict.predict_streamed(cast(Client, PixelClient()), IMAGES)
    assert outcome.predictions.tolist() == list(range(10))
