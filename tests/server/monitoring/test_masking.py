"""What a model.yaml hides is in no recording."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from inferd.tensors import Array
from inferd_server.monitoring.masking import masked
from inferd_server.monitoring.samples import Sample
from inferd_server.settings.monitoring import Mask, RecordingConfig

KEY = bytes(32)
TEXTS = np.array([[b"secret", b"other"], [b"secret", b""]], np.object_)
NUMBERS = np.arange(4, dtype=np.int16)


def recorded(
    masks: Mapping[str, Mask], *, inputs: bool = True, outputs: bool = True, key: bytes = KEY
) -> tuple[Mapping[str, Array], Mapping[str, Array], list[str], list[str]]:
    rules = RecordingConfig(inputs=inputs, outputs=outputs, masks=masks)
    sent = {"text": TEXTS, "number": NUMBERS}
    one = Sample("m", "2", "id", 1.5, sent, {"score": NUMBERS}, {"priority": 2}, rules)
    found = masked(one, key)
    assert found is not None
    assert (found.model, found.version, found.id, found.at) == ("m", "2", "id", 1.5)
    assert found.parameters == {"priority": 2}
    return found.inputs, found.outputs, list(found.masked_inputs), list(found.masked_outputs)


def test_without_masks_all_is_recorded() -> None:
    inputs, outputs, *hidden = recorded({})
    assert (inputs, outputs) == ({"text": TEXTS, "number": NUMBERS}, {"score": NUMBERS})
    assert hidden == [[], []]


def test_what_is_dropped_is_left_out_and_said_to_be() -> None:
    inputs, outputs, *hidden = recorded({"text": "drop", "score": "drop"})
    assert (list(inputs), list(outputs)) == (["number"], [])
    assert hidden == [["text"], ["score"]]


def test_zeros_keep_datatype_and_shape_and_nothing_else() -> None:
    inputs, outputs, *hidden = recorded({"text": "zeros", "score": "zeros"})
    assert inputs["text"].tolist() == [[b"", b""], [b"", b""]]
    assert (outputs["score"].dtype, outputs["score"].tolist()) == (np.int16, [0, 0, 0, 0])
    assert hidden == [["text"], ["score"]]


def test_hashes_are_equal_where_the_texts_are_and_do_not_tell_them() -> None:
    inputs, _, *hidden = recorded({"text": "hash"})
    (first, other), (again, empty) = inputs["text"].tolist()
    assert first == again
    assert len({first, other, empty}) == 3
    assert all(len(one) == 32 and b"secret" not in one for one in (first, other, empty))
    assert hidden == [["text"], []]
    # Without the key nobody can try texts out.
    different, *_ = recorded({"text": "hash"}, key=bytes([1]) * 32)
    assert different["text"].tolist()[0][0] != first


@pytest.mark.parametrize("kind", ["inputs", "outputs"])
def test_a_side_that_is_not_recorded_is_left_out_whole(kind: str) -> None:
    inputs, outputs, masked_inputs, masked_outputs = recorded({}, **{kind: False})
    if kind == "inputs":
        assert (inputs, masked_inputs, masked_outputs) == ({}, ["text", "number"], [])
    else:
        assert (outputs, masked_inputs, masked_outputs) == ({}, [], ["score"])


def test_with_neither_side_nothing_is_recorded() -> None:
    rules = RecordingConfig(inputs=False, outputs=False)
    assert masked(Sample("m", "1", "", 0.0, {"a": NUMBERS}, {}, {}, rules), KEY) is None
