"""Steps of sequences in batches: each on what the last one of its sequence left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd.tensors import Array
from inferd_engines.engine import EngineError, Signature, Tensor
from inferd_server.errors import SequenceNotFound, TooManySequences
from inferd_server.models.config import StateConfig
from inferd_server.sequences.engine import StatefulEngine
from inferd_server.sequences.steps import HIDDEN, Step
from inferd_server.sequences.store import SequenceRefused, Sequences

from tests.fakes.clock import FakeClock
from tests.fakes.engine import FakeEngine

FLOAT = np.dtype(np.float32)
PAIR = StateConfig(input="SUM_IN", output="SUM_OUT")
SUMMING = Signature(
    (Tensor("INPUT0", FLOAT, (None, 1)), Tensor("SUM_IN", FLOAT, (None, 1))),
    (Tensor("OUTPUT0", FLOAT, (None, 1)), Tensor("SUM_OUT", FLOAT, (None, 1))),
)
GROWING = Signature(
    (Tensor("INPUT0", FLOAT, (None, 1)), Tensor("SUM_IN", FLOAT, (None, None))),
    (Tensor("OUTPUT0", FLOAT, (None, 1)), Tensor("SUM_OUT", FLOAT, (None, None))),
)


def add(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """OUTPUT0 and the state are the sum so far."""
    total = inputs["INPUT0"] + inputs["SUM_IN"]
    return {"OUTPUT0": total, "SUM_OUT": total}


def append(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """The state is all that came, OUTPUT0 its sum."""
    seen = np.concatenate([inputs["SUM_IN"], inputs["INPUT0"]], axis=1)
    return {"OUTPUT0": seen.sum(axis=1, keepdims=True), "SUM_OUT": seen}


@dataclass(frozen=True)
class Row:
    """One request."""

    key: int
    value: float
    starts: bool = False
    ends: bool = False


class Bench:
    """A stateful engine over one that adds up."""

    def __init__(self, most: int = 100, signature: Signature = SUMMING) -> None:
        self.clock = FakeClock()
        self.inner = FakeEngine(signature, add if signature is SUMMING else append)
        self.kept = Sequences(most, 10.0, self.clock)
        self.engine = StatefulEngine(self.inner, [PAIR], self.kept, batched=True)

    def inputs(self, rows: Sequence[Row]) -> dict[str, Array]:
        made = {"INPUT0": np.array([[row.value] for row in rows], np.float32)}
        hidden = [np.zeros((len(rows), 1), tensor.dtype) for tensor in HIDDEN]
        for place, row in enumerate(rows):
            Step(row.key, row.starts, row.ends).write([array[place] for array in hidden])
        return made | {tensor.name: array for tensor, array in zip(HIDDEN, hidden, strict=True)}

    def run(self, *rows: Row) -> list[float]:
        found = self.engine.run(self.inputs(rows), {}, len(rows))
        assert list(found) == ["OUTPUT0"]
        return [float(value) for value in found["OUTPUT0"][:, 0]]


def test_callers_see_nothing_of_states() -> None:
    told = Bench().engine.told
    assert [tensor.name for tensor in (*told.inputs, *told.outputs)] == ["INPUT0", "OUTPUT0"]


def test_sequences_share_a_batch_and_keep_to_themselves() -> None:
    bench = Bench()
    assert bench.run(Row(1, 1.0, starts=True), Row(2, 10.0, starts=True)) == [1.0, 10.0]
    assert bench.run(Row(2, 20.0), Row(1, 2.0)) == [30.0, 3.0]
    assert [batch.rows for batch in bench.inner.batches] == [2, 2]


def test_states_of_other_shapes_do_not_share_a_run() -> None:
    bench = Bench(signature=GROWING)
    assert bench.run(Row(1, 1.0, starts=True)) == [1.0]
    assert bench.run(Row(1, 2.0), Row(2, 5.0, starts=True), Row(3, 6.0, starts=True)) == [3, 5, 6]
    assert [batch.rows for batch in bench.inner.batches] == [1, 1, 2]
    assert bench.run(Row(1, 3.0)) == [6.0]


def test_a_start_begins_anew_and_an_end_forgets() -> None:
    bench = Bench()
    assert bench.run(Row(1, 1.0, starts=True)) == [1.0]
    assert bench.run(Row(1, 5.0, starts=True, ends=True)) == [5.0]
    assert len(bench.kept) == 0
    with pytest.raises(SequenceRefused) as caught:
        bench.run(Row(1, 1.0))
    assert isinstance(caught.value.error, SequenceNotFound)


def test_nothing_is_kept_of_a_batch_that_fails_and_it_can_run_again() -> None:
    bench = Bench()
    bench.run(Row(1, 1.0, starts=True))
    bench.inner.fail(EngineError("once"))
    with pytest.raises(EngineError, match="once"):
        bench.run(Row(1, 2.0), Row(2, 3.0, starts=True))
    assert bench.run(Row(1, 2.0)) == [3.0]
    assert bench.run(Row(2, 3.0, starts=True)) == [3.0]


def test_a_sequence_that_ended_is_not_known_and_others_go_on() -> None:
    bench = Bench()
    bench.run(Row(1, 1.0, starts=True), Row(2, 1.0, starts=True))
    bench.engine.end(1)
    with pytest.raises(SequenceRefused, match="is not known"):
        bench.run(Row(1, 2.0))
    assert bench.run(Row(2, 2.0)) == [3.0]


def test_a_silent_sequence_is_forgotten() -> None:
    bench = Bench()
    bench.run(Row(1, 1.0, starts=True))
    bench.clock.advance(10.0)
    bench.run(Row(2, 1.0, starts=True))
    assert bench.run(Row(1, 1.0)) == [2.0]
    bench.clock.advance(10.1)
    with pytest.raises(SequenceRefused, match="silent for 10 s"):
        bench.run(Row(2, 1.0))
    assert len(bench.kept) == 0


def test_no_more_sequences_open_than_may_and_silent_ones_make_room() -> None:
    bench = Bench(most=2)
    bench.run(Row(1, 1.0, starts=True), Row(2, 1.0, starts=True))
    with pytest.raises(SequenceRefused) as caught:
        bench.run(Row(3, 1.0, starts=True))
    assert isinstance(caught.value.error, TooManySequences)
    assert bench.run(Row(1, 4.0, starts=True)) == [4.0]
    bench.clock.advance(10.1)
    assert bench.run(Row(3, 1.0, starts=True)) == [1.0]


def test_instances_open_no_more_sequences_together_than_may() -> None:
    kept = Sequences(2, 10.0, FakeClock())
    with kept.starting({1}), kept.starting({2}):
        with pytest.raises(SequenceRefused), kept.starting({3}):
            pass
        kept.keep(1, ())
    with kept.starting({3}):
        pass


def test_a_batch_opens_no_more_sequences_than_may() -> None:
    bench = Bench(most=2)
    with pytest.raises(SequenceRefused):
        bench.run(*(Row(key, 1.0, starts=True) for key in (1, 2, 3)))
    assert len(bench.kept) == 0


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (StateConfig(input="X", output="SUM_OUT"), "there is no input 'X'; there are INPUT0"),
        (StateConfig(input="SUM_IN", output="X"), "there is no output 'X'"),
    ],
)
def test_states_that_the_model_does_not_have_are_told(pair: StateConfig, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        StatefulEngine(FakeEngine(SUMMING), [pair], Sequences(1, 1.0, FakeClock()), batched=True)


@given(
    st.lists(
        st.lists(
            st.builds(
                Row, st.integers(1, 3), st.integers(1, 100).map(float), st.booleans(), st.booleans()
            ),
            min_size=1,
            max_size=3,
            unique_by=lambda row: row.key,
        ),
        max_size=16,
    ),
)
def test_batches_answer_as_one_request_after_the_other_would(batches: list[list[Row]]) -> None:
    bench, sums = Bench(), dict[int, float]()
    for rows in batches:
        if not all(row.starts or row.key in sums for row in rows):
            # Nothing is kept of a batch with a sequence that is not known.
            with pytest.raises(SequenceRefused):
                bench.run(*rows)
            continue
        for row in rows:
            sums[row.key] = row.value + (0.0 if row.starts else sums[row.key])
        assert bench.run(*rows) == [sums[row.key] for row in rows]
        for row in rows:
            if row.ends:
                del sums[row.key]
