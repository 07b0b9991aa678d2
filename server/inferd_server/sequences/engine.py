"""An engine whose requests build on each other: it gets the states, and what it gives is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from inferd.tensors import Array
from inferd_engines.arrays import write_into
from inferd_engines.delegate import Delegate
from inferd_engines.engine import Engine, Signature, Tensor

from inferd_server.sequences.controls import (
    Control,
    control_array,
    control_tensors,
    largest_key,
)
from inferd_server.sequences.states import StatePair, first_state, public
from inferd_server.sequences.steps import HIDDEN, KEY, LARGEST_KEY, MARKS, Step, read_steps
from inferd_server.sequences.store import Sequences, State

Outputs = Mapping[str, Array]


class StatefulEngine(Delegate):
    """Runs steps of sequences, each on what the last one of its sequence left."""

    def __init__(
        self,
        engine: Engine,
        pairs: Sequence[StatePair],
        sequences: Sequences,
        controls: Sequence[Control] = (),
        *,
        batched: bool,
    ) -> None:
        """Wrap an engine.

        Args:
            engine: with the state tensors among its inputs and outputs.
            pairs: which they are.
            sequences: of all instances of the model.
            controls: inputs that tell the model a request's place in its sequence.
            batched: whether the first dimension counts requests.

        Raises:
            EngineError: the tensors of a pair do not go together, or a control is none.
        """
        super().__init__(engine)
        self._pairs = pairs
        self._sequences = sequences
        self._batched = batched
        self._initial = tuple(first_state(engine.signature, pair, batched) for pair in pairs)
        self._controls = controls
        self._filled = control_tensors(engine.signature, controls, batched=batched)
        self.largest_key = largest_key(controls, self._filled)
        told = public(engine.signature, pairs, self._filled)
        self._public = told
        hidden = HIDDEN if batched else tuple(_alone(tensor) for tensor in HIDDEN)
        self._signature = replace(told, inputs=(*told.inputs, *hidden))

    @property
    def signature(self) -> Signature:
        """Without states, and with the rows that tell which sequence a request belongs to."""
        return self._signature

    @property
    def told(self) -> Signature:
        """What callers know."""
        return self._public

    def run(self, inputs: Mapping[str, Array], outputs: Outputs, rows: int) -> Outputs:
        """Run a step of each row's sequence, no two of one sequence.

        Nothing is kept unless all of them run.

        Raises:
            SequenceRefused: a sequence is not known, or there are too many.
            EngineError: as the engine's.
        """
        steps = read_steps(inputs[KEY.name], inputs[MARKS.name])
        assert len(steps) == rows
        with self._sequences.starting({step.key for step in steps if step.starts}):
            left, found = self._run_steps(inputs, steps)
            self._keep(steps, left)
        return {
            tensor.name: deliver(tensor, [row[tensor.name] for row in found], outputs)
            for tensor in self._public.outputs
        }

    def end(self, key: int) -> None:
        """End a sequence: a request of it was not answered with its outputs.

        What comes after that would build on what never was.
        """
        self._sequences.forget(key)

    def _keep(self, steps: Sequence[Step], left: Sequence[State]) -> None:
        for step, state in zip(steps, left, strict=True):
            if step.ends:
                self._sequences.forget(step.key)
            else:
                self._sequences.keep(step.key, state)

    def _run_steps(
        self, inputs: Mapping[str, Array], steps: Sequence[Step]
    ) -> tuple[Sequence[State], Sequence[Outputs]]:
        """Return what each step leaves, and the outputs of each row."""
        before = [self._before(step) for step in steps]
        left: list[State] = [()] * len(steps)
        found: list[Outputs] = [{}] * len(steps)
        for wave in waves(before):
            states = [before[row] for row in wave]
            outputs = self._run_wave(inputs, wave, states, [steps[row] for row in wave])
            for place, row in enumerate(wave):
                span = slice(place, place + 1) if self._batched else ...
                found[row] = {name: array[span] for name, array in outputs.items()}
                left[row] = tuple(outputs[pair.output][span].copy() for pair in self._pairs)
        return left, found

    def _before(self, step: Step) -> State:
        """Return what a step builds on.

        Raises:
            SequenceRefused: its sequence is not known.
        """
        return self._initial if step.starts else self._sequences.state(step.key)

    def _run_wave(
        self,
        inputs: Mapping[str, Array],
        wave: Sequence[int],
        states: Sequence[State],
        steps: Sequence[Step],
    ) -> Outputs:
        own = {
            tensor.name: inputs[tensor.name][wave] if self._batched else inputs[tensor.name]
            for tensor in self._public.inputs
        }
        for index, pair in enumerate(self._pairs):
            own[pair.input] = np.concatenate([state[index] for state in states])
        for control in self._controls:
            own[control.input] = control_array(control, self._filled[control.input], steps)
        return self._engine.run(own, {}, len(wave))


def waves(states: Sequence[State]) -> Sequence[Sequence[int]]:
    """Return the rows that can run together: those whose states have one shape."""
    found: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for row, state in enumerate(states):
        found.setdefault(tuple(array.shape for array in state), []).append(row)
    return list(found.values())


def deliver(tensor: Tensor, rows: Sequence[Array], outputs: Outputs) -> Array:
    """Put rows together, into the caller's buffer if there is one."""
    whole = rows[0] if len(rows) == 1 else np.concatenate(rows)
    buffer = outputs.get(tensor.name)
    return whole if buffer is None else write_into(buffer, tensor, whole)


def _alone(tensor: Tensor) -> Tensor:
    """Return a hidden input of a model without a batch dimension."""
    return replace(tensor, shape=tensor.shape[1:])


def largest_sequence_id(engine: Engine) -> int:
    """Return the largest id that a model can be told."""
    return engine.largest_key if isinstance(engine, StatefulEngine) else LARGEST_KEY


def told(engine: Engine) -> Signature:
    """Return what callers know of a model."""
    return engine.told if isinstance(engine, StatefulEngine) else engine.signature
