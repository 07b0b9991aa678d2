"""Whole requests through the front: answered with what they brought, or refused for a reason."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from threading import Event

import numpy as np
from inferd.oip.v2.inference_pb2 import ModelInferRequest, ModelInferResponse
from inferd.tensors import Buffer
from inferd_engines.engine import Signature, Tensor
from inferd_server.batching.forecast import Forecast
from inferd_server.batching.job import Job
from inferd_server.batching.slots import Arena
from inferd_server.cache.making import make_cache
from inferd_server.errors import InferdError, InvalidInput, NotFound
from inferd_server.inference.handler import Infer
from inferd_server.inference.infer_request import Telemetry
from inferd_server.inference.sampling import Sampling
from inferd_server.inference.shared_memory import RegionTable
from inferd_server.models.config import ModelConfig
from inferd_server.models.entries import Entries, ModelEntry, State
from inferd_server.models.version import Handle, ModelBounds
from inferd_server.monitoring.bounded_log import BoundedLog
from inferd_server.monitoring.metrics import Metrics
from inferd_server.monitoring.phases import Execution, Phases
from inferd_server.monitoring.statistics import Statistics
from inferd_server.settings.model import CacheSettings

from tests.fakes.signer import signer
from tests.fuzz.operations import Choices

BOUNDS = ModelBounds(4, 0.0, 64, 1 << 16)
PHASES = Phases(0.0, Execution(1, 0.0, 0.0, 0.0))
SHAPES = {"m": ((None, 2), np.float32), "t": ((None, 1), np.object_), "b": ((None,), np.bool_)}
LOG = logging.getLogger(__name__)
PATIENCE_S = 10.0


def signature(names: Sequence[str]) -> Signature:
    """Return inputs of these kinds, and outputs of the same names."""
    tensors = []
    for name in names:
        shape, kind = SHAPES[name]
        free = tuple("batch" if size is None else "" for size in shape)
        tensors.append(Tensor(name, np.dtype(kind), shape, free))
    return Signature(tuple(tensors), tuple(tensors))


class Echo:
    """A queue that answers every request with its inputs, at once."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def submit(self, job: Job) -> bool:
        job.finish(dict(zip(self._names, job.slot.inputs, strict=True)), PHASES)
        return True

    def withdraw(self, job: Job) -> bool:
        return False


class OneCall:
    """A call that remembers its answer."""

    metadata = ()
    peer = "ipv4:127.0.0.1:1"
    deadline = None
    cancelled = False
    stream = None

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.answers: list[bytes | InferdError] = []
        self.answered = Event()

    def on_cancel(self, callback: object) -> None:
        pass

    def send_initial_metadata(self, metadata: object) -> None:
        pass

    def reply(self, parts: Sequence[Buffer], trailing: object = ()) -> None:
        self.answers.append(b"".join(parts))
        self.answered.set()

    def fail(self, error: InferdError) -> None:
        self.answers.append(error)
        self.answered.set()


class Front:
    """ModelInfer before models that echo: m (numbers), t (text), b (booleans), all (each)."""

    def __init__(self) -> None:
        entries = Entries(lambda: None)
        self._arenas = []
        for name in ("m", "t", "b", "all"):
            names = list(SHAPES) if name == "all" else [name]
            arena = Arena(BOUNDS.max_queue_rows, BOUNDS.max_queue_bytes)
            given = (name, 1, ModelConfig(), signature(names), BOUNDS, "echo", "", "")
            handle = Handle(*given, Echo(names), arena, Statistics(), Forecast(BOUNDS.limits))
            entries.put(ModelEntry(name, 1, State.READY, "", handle))
            self._arenas.append(arena)
        telemetry = Telemetry(
            Metrics(),
            lambda: 0.0,
            lambda: 0.0,
            BoundedLog(LOG, lambda: 0.0),
        )
        cache = make_cache(CacheSettings(), telemetry.clock, telemetry.wall)
        regions = RegionTable()
        sampling = Sampling(None, 0.0, regions, telemetry.clock, telemetry.wall, telemetry.clock)
        self._infer = Infer(entries, regions, telemetry, cache, signer(), sampling)

    def answer(self, message: bytes) -> bytes | InferdError:
        """Return the one answer to a message; no row may be held after it."""
        call = OneCall(message)
        self._infer(call)
        # Much text is read on another thread, which is done soon after its answer.
        assert call.answered.wait(PATIENCE_S)
        while self._infer._decoding.busy:
            time.sleep(0)
        (answer,) = call.answers
        assert all(arena.rows == 0 for arena in self._arenas)
        return answer


def check(message: bytes, answer: bytes | InferdError) -> None:
    """Hold an answer against the message as the generated class reads it."""
    if isinstance(answer, InferdError):
        assert isinstance(answer, (InvalidInput, NotFound)), repr(answer)
        assert str(answer)
        return
    asked = ModelInferRequest.FromString(message)
    told = ModelInferResponse.FromString(answer)
    assert (told.model_name, told.id) == (asked.model_name, asked.id)
    brought = {tensor.name: tensor for tensor in asked.inputs}
    raw = dict(zip(brought, asked.raw_input_contents, strict=False))
    for output, data in zip(told.outputs, told.raw_output_contents, strict=True):
        assert list(output.shape) == list(brought[output.name].shape)
        assert output.datatype == brought[output.name].datatype
        if raw:
            assert data == raw[output.name]


def requests(data: bytes) -> None:
    """Ask a message, ask it again, and ask one that differs in up to seven bytes."""
    choices = Choices(data)
    edits = [(choices.number(0, 300), choices.byte()) for _ in range(choices.byte() & 7)]
    first = choices.rest()
    other = bytearray(first)
    for place, value in edits:
        if other:
            other[place % len(other)] = value
    front = Front()
    for message in (first, first, bytes(other), first):
        check(message, front.answer(message))
