"""Prediction tokens say what they were signed for, and nothing else passes for one."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_server.errors import SettingsError
from inferd_server.feedback.keys import TokenKeys, token_keys
from inferd_server.feedback.tokens import (
    LONGEST,
    MOST_ROWS,
    ForgedToken,
    Prediction,
    TokenSigner,
    short_digest,
)
from inferd_server.settings.feedback import FeedbackSettings

from tests.fakes.signer import signer

FIRST, SECOND = b"1" * 32, b"2" * 32


def prediction(*classes: int, model: str = "m") -> Prediction:
    sure = np.linspace(0, 1, len(classes))
    return Prediction(model, 3, short_digest("ab" * 32), np.array(classes, np.int64), sure)


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    st.integers(0, 2**32 - 1),
)
def test_a_token_says_what_was_signed(model: str, classes: list[int], made: int) -> None:
    said = prediction(*classes, model=model)
    found = signer().read(signer(wall=lambda: made + 0.5).sign(said))
    assert found.made == made
    assert found.prediction.model == model
    assert found.prediction.version == 3
    assert found.prediction.digest == said.digest
    assert found.prediction.classes.tolist() == classes
    assert np.allclose(found.prediction.confidences, said.confidences, atol=1e-3)


def test_a_token_of_one_class_is_short() -> None:
    assert len(signer().sign(prediction(7, model="digits"))) <= 90


def test_a_row_without_a_confidence_has_none_in_the_token() -> None:
    said = Prediction("m", 1, short_digest(""), np.array([1]), np.array([np.nan]))
    assert np.isnan(signer().read(signer().sign(said)).prediction.confidences).all()


def test_no_character_of_a_token_can_be_changed_by_one_bit() -> None:
    token = signer().sign(prediction(1, 2))
    read = signer().read
    assert read(token)
    for place, letter in enumerate(token):
        for bit in range(7):
            other = chr(ord(letter) ^ 1 << bit)
            with pytest.raises(ForgedToken):
                read(token[:place] + other + token[place + 1 :])


@pytest.mark.parametrize("text", ["", "x", "AAAA", "A" * 100, "ä" * 80, "=" * 80, "\0" * 80])
def test_what_is_no_token_is_forged(text: str) -> None:
    with pytest.raises(ForgedToken):
        signer().read(text)


def test_a_token_that_is_cut_or_longer_is_forged() -> None:
    token = signer().sign(prediction(1))
    for other in (token[:-1], token[:-4], token + "A", token + "=", " " + token, token + "\n"):
        with pytest.raises(ForgedToken):
            signer().read(other)


def test_another_servers_token_is_forged_and_that_of_a_shared_key_is_not() -> None:
    token = signer(FIRST).sign(prediction(1))
    with pytest.raises(ForgedToken):
        signer(SECOND).read(token)
    assert signer(FIRST).read(token)


def test_keys_rotate_the_first_signs_and_all_are_accepted() -> None:
    before, during, after = signer(FIRST), signer(SECOND, FIRST), signer(SECOND)
    assert during.read(before.sign(prediction(1)))
    assert after.read(during.sign(prediction(1)))
    with pytest.raises(ForgedToken):
        after.read(before.sign(prediction(1)))


def test_two_tokens_of_one_prediction_differ() -> None:
    assert signer().sign(prediction(1)) != signer().sign(prediction(1))


def test_the_longest_token_is_no_longer_than_a_server_reads() -> None:
    name, classes = "m" * 255, [2**62] * MOST_ROWS
    assert len(signer().sign(prediction(*classes, model=name))) <= LONGEST


def test_a_key_of_the_settings_signs_for_every_server_that_has_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("ab" * 32)
    keys = token_keys(FeedbackSettings(feedback_keys=(f"file:{path}",)))
    assert keys == TokenKeys((bytes.fromhex("ab" * 32),), lasting=True)


def test_without_a_key_a_random_one_is_made_and_the_log_says_what_that_means(
    caplog: pytest.LogCaptureFixture,
) -> None:
    keys = token_keys(FeedbackSettings())
    assert keys != token_keys(FeedbackSettings())
    made = TokenSigner(keys, lambda: 0.0)
    with caplog.at_level(logging.WARNING):
        made.sign(prediction(1))
        made.sign(prediction(1))
    assert [record.message for record in caplog.records] == [
        "prediction tokens do not survive a restart: feedback_keys names no key"
    ]


@pytest.mark.parametrize("source", ["file:/no/such/key", "env:NO_SUCH_KEY", "command:false"])
def test_a_key_that_cannot_be_had_is_named(source: str) -> None:
    with pytest.raises(SettingsError, match=r"^feedback_keys: "):
        token_keys(FeedbackSettings(feedback_keys=(source,)))
