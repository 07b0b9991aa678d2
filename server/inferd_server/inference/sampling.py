"""Sampling: a part of a model's requests is copied with their answers, for the tap.

Whether a model is sampled is decided when a form of request is checked for the first time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np
from inferd.oip.v2.inference_pb2 import InferParameter, ModelInferRequest
from inferd.tensors import Array, Buffer

from inferd_server.inference.inputs import RegionElements, Source, locate
from inferd_server.inference.response import AnsweredRequest, OutputTarget
from inferd_server.inference.shared_memory import RegionTable
from inferd_server.inference.validation import Admitted, Input, RegionRange, admit
from inferd_server.inference.wire import parse
from inferd_server.models.version import Handle
from inferd_server.monitoring.chance import Chance, Draw, picked
from inferd_server.monitoring.samples import Sample, Tap, array_bytes

log = logging.getLogger(__name__)
Sent: TypeAlias = tuple[tuple[Input, int], ...]
"""The inputs that one form of request sends, and the index of the raw payload of each."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Decides which forms of request are sampled, and has what that takes."""

    tap: Tap | None
    """None: nobody looks at samples."""
    share: float
    """Part of the requests of models that say nothing of it."""
    regions: RegionTable
    clock: Callable[[], float]
    """Monotonic seconds."""
    wall: Callable[[], float]
    """Seconds since the epoch."""
    draw: Draw
    wanted: Callable[[Handle], bool] = lambda _: True
    """Tells whether anybody looks at the samples of a version."""

    def of(
        self,
        handle: Handle,
        admitted: Admitted,
        sources: Sequence[Source] | None,
        targets: Sequence[OutputTarget],
    ) -> Sampler | None:
        """Return what samples one form of request; None where none is sampled.

        Args:
            handle: of the model.
            admitted: a request of that form.
            sources: where the inputs of every such request are; None: each is read anew.
            targets: the outputs that such requests ask for.
        """
        own = handle.config.sample_share
        share = self.share if own is None else own
        if self.tap is None or not share or not self.wanted(handle):
            return None
        passing = any(isinstance(item.source, RegionRange) for item in admitted.inputs)
        names = [target.name for target in targets]
        sent = sent_inputs(admitted, sources)
        return Sampler(handle, names, passing, sent, share, self.tap, self)


class Sampler(Chance):
    """Hands some requests of one form to the tap, with their answers.

    What answers a request counts `left` down itself while it is above 1, unless the request is of
    a sequence, and calls `look` otherwise: a call for each would cost more than the samples do.
    """

    def __init__(
        self,
        handle: Handle,
        outputs: Sequence[str],
        passing: bool,
        sent: Sent | None,
        share: float,
        tap: Tap,
        sampling: Sampling,
    ) -> None:
        """Prepare.

        Args:
            handle: of the model.
            outputs: that the requests ask for.
            passing: whether inputs are in shared memory, where they stay until the answer only.
            sent: the inputs of all these requests; None: each is checked anew.
            share: part of the requests to take.
            tap: that gets them.
            sampling: with what else that takes.
        """
        super().__init__(share, sampling.draw)
        self._handle = handle
        self._outputs = outputs
        self._passing = passing
        self._sent = sent
        self._tap = tap
        self._sampling = sampling

    def look(self, request: AnsweredRequest, outputs: Mapping[str, Array]) -> None:
        """Take a request or pass it over; of a sequence all are taken, or none. Never raises."""
        sequence = request.sequence
        if picked(sequence, self._share) if sequence else self():
            try:
                self._offer(request, outputs)
            except Exception:
                # The answer is made: it must not be lost for this.
                log.exception("a sample could not be taken")
                self._tap.drop(self._handle.name, self._handle.version)

    def _offer(self, request: AnsweredRequest, outputs: Mapping[str, Array]) -> None:
        """Hand over the message, which nobody changes, and copies of what will be changed."""
        message, handle, around = request.call.request, self._handle, self._sampling
        at = around.wall() - (around.clock() - request.started)
        # Of a batch, or of memory that others write to soon.
        kept = {name: outputs[name].copy() for name in self._outputs}
        nbytes = len(message) + sum(map(array_bytes, kept.values()))
        read: Callable[[], Sample] = partial(
            read_sample, message, handle, around.regions, kept, at, self._sent
        )
        if self._passing:
            sample = read()
            nbytes += sum(map(array_bytes, sample.inputs.values()))
            read = partial(same, sample)
        self._tap.offer(handle.name, handle.version, nbytes, read)


def sent_inputs(admitted: Admitted, sources: Sequence[Source] | None) -> Sent | None:
    """Return the inputs that all requests of one form send as raw payloads, with their indices.

    Args:
        admitted: a request of that form.
        sources: where its inputs are; None: it says nothing of others.

    Returns:
        None if some are elsewhere: such requests are checked anew.
    """
    if sources is None or any(isinstance(source, RegionElements) for source in sources):
        return None
    pairs = zip(admitted.inputs, sources, strict=True)
    # What the model itself stands in for was not sent, and will not be. Kept without the message.
    return tuple(
        (replace(item, source=b""), source) for item, source in pairs if isinstance(source, int)
    )


def read_sample(
    message: bytes,
    handle: Handle,
    regions: RegionTable,
    outputs: Mapping[str, Array],
    at: float,
    sent: Sent | None,
) -> Sample:
    """Read the request of a sample, which was admitted before.

    Args:
        message: of the request.
        handle: of the version that answered.
        regions: of shared memory.
        outputs: of the answer.
        at: when it came, in seconds since the epoch.
        sent: its inputs, where requests of its form were checked before; None: checked anew.

    Raises:
        InferdError: shared memory is not what it was.
    """
    request, raw = parse(message)
    if sent is None:
        inputs = read_inputs(request, raw, handle, regions)
    else:
        inputs = {item.tensor.name: payload_array(item, raw[index]) for item, index in sent}
    return Sample(
        handle.name,
        str(handle.version),
        request.id,
        at,
        inputs,
        outputs,
        plain(request.parameters),
        handle.config.recording,
    )


def payload_array(item: Input, payload: Buffer) -> Array:
    """Return a copy of the elements of a raw payload that was found to fit its input."""
    return np.array(np.frombuffer(payload, item.tensor.dtype)).reshape(item.shape)


def read_inputs(
    request: ModelInferRequest, raw: Sequence[Buffer], handle: Handle, regions: RegionTable
) -> dict[str, Array]:
    """Return the inputs that a request sent, checked as it was before it ran.

    Raises:
        InferdError: shared memory is not what it was.
    """
    admitted = admit(request, raw, handle.signature, handle.bounds.max_batch_size)
    inputs: dict[str, Array] = {}
    for item, located in zip(admitted.inputs, locate(admitted, regions), strict=True):
        # What the model itself stands in for was not sent, and will not be.
        if not item.left_out:
            target = inputs[item.tensor.name] = np.empty(item.shape, item.tensor.dtype)
            located.write(target)
    return inputs


def plain(parameters: Mapping[str, InferParameter]) -> dict[str, bool | int | float | str]:
    """Return the parameters of a request as plain values."""
    kinds = {name: one.WhichOneof("parameter_choice") for name, one in parameters.items()}
    return {name: getattr(parameters[name], kind) for name, kind in kinds.items() if kind}


def same(sample: Sample) -> Sample:
    """Return a sample that was read already."""
    return sample
