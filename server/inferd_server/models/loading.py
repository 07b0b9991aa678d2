"""A model version while its instances open."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inferd.tensors import Array, datatype_of
from inferd_engines.arrays import zeros
from inferd_engines.engine import Engine, EngineError, Overlapping, Registering, Signature
from inferd_engines.model_files import ModelFiles
from inferd_engines.onnx_values import ModelFacts, read_facts

from inferd_server.batching.fair_share import FairShare, Member, Turn
from inferd_server.batching.fatal import End
from inferd_server.batching.forecast import Forecast
from inferd_server.batching.inline import MOST_TEXT, InlineLoop, longest, why_not_inline
from inferd_server.batching.instance import Instance, Work
from inferd_server.batching.lanes import LanePool
from inferd_server.batching.overlap import Overlap
from inferd_server.batching.queue import BatchQueue, Queues
from inferd_server.batching.runner import Runner
from inferd_server.batching.slots import Arena
from inferd_server.errors import InvalidInput
from inferd_server.memory import give_back
from inferd_server.models.batch_memory import MemoryGauge, rows_with_room
from inferd_server.models.batchable import (
    Batching,
    batched_signature,
    find_batching,
    fixed_input,
    row_bytes,
)
from inferd_server.models.config import ImageFormat, ModelConfig
from inferd_server.models.digest import content_digest
from inferd_server.models.last_request import LastRequest
from inferd_server.models.layout import config_folder
from inferd_server.models.observing import Observing
from inferd_server.models.optional_inputs import with_optional_inputs
from inferd_server.models.output_shapes import as_seen
from inferd_server.models.predictions import predicting_output
from inferd_server.models.reference_data import DriftKeeper, reference_key
from inferd_server.models.remarks import remarks
from inferd_server.models.reshaping import reshaping
from inferd_server.models.row_trials import SPARE_WARM, RowTrials
from inferd_server.models.shrinking import shrinking
from inferd_server.models.triton_config import DeclaredTensor, check_declared
from inferd_server.models.version import Handle, ModelBounds, bounds_of
from inferd_server.models.warmup import (
    WarmUp,
    free_dimensions,
    preferred_rows,
    read_own,
    run_seconds,
    warm,
)
from inferd_server.monitoring.metrics import Metrics
from inferd_server.monitoring.statistics import Statistics
from inferd_server.sequences.engine import StatefulEngine, largest_sequence_id, told
from inferd_server.sequences.store import Sequences
from inferd_server.settings.model import BatchingSettings
from inferd_server.settings.monitoring import Mask

log = logging.getLogger(__name__)
Lost = Callable[[Handle], None]
CPU = "CPU"
"""Stands in the names of engines that run on the processor."""
LARGE_BATCH = 1 << 20
"""Bytes of inputs from which on what a batch takes is worth giving back."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a process has for its models."""

    defaults: BatchingSettings
    asked: str
    """The arrangement that the settings ask for."""
    inline: InlineLoop | None
    """Hosts engines on the transport's thread, if that is done."""
    queues: Queues
    """Makes the queues."""
    share: FairShare
    """Of the engines' time, for all models."""
    lanes: LanePool
    """Where rows of requests lie, shared by all models."""
    metrics: Metrics
    clock: Callable[[], float]
    """Monotonic seconds."""
    trials: RowTrials
    memory: MemoryGauge
    end: End
    """Called with an error after which an engine can run nothing more."""
    drift: DriftKeeper


class Loading:
    """Makes the handle; its methods run on the threads of the instances."""

    def __init__(
        self,
        name: str,
        version: int,
        files: ModelFiles,
        config: ModelConfig,
        around: Surroundings,
        lost: Lost,
        most_rows: int | None = None,
        declared: tuple[DeclaredTensor, ...] = (),
    ) -> None:
        self.name = name
        self.version = version
        self._files = files
        self._config = config
        self._own: Mapping[str, Array] | None = None
        # Bytes that this process held before an instance was warmed.
        self._before = 0
        self._around = around
        self._lost = lost
        self._most_rows = most_rows
        self._declared = declared
        self._handle: Handle | None = None
        self._queue: BatchQueue[Any] | None = None
        self._observing = Observing(name, version, around.metrics)
        self._member = Member(config.weight)

    def first(self, engine: Engine) -> Work:
        """Find out how to batch, set up queue and slots, warm the engine."""
        config, around = self._config, self._around
        self._check_size(engine)
        self._own = read_own(config, config_folder(self._files.model), engine.signature)
        self._before = around.trials.budget.resident()
        batching = self._batching(engine)
        warm_up = WarmUp(engine, self._own, batching.max_batch_size > 0)
        fitting = min(batching.max_batch_size, batching.fitting or batching.max_batch_size)
        preferred = preferred_rows(warm_up, config, fitting, engine.buckets, around.clock)
        bounds = bounds_of(config, around.defaults, batching, preferred, engine.buckets)
        self._remark(engine.signature, bounds)
        sequences = self._sequences()
        served = self._served(engine, bounds, sequences)
        signature = self._told(told(served), warm_up, bounds)
        self._check_told(signature, batched=batching.max_batch_size > 0)
        self._handle = self._handle_of(
            engine, served, sequences, signature, bounds, batching.reason
        )
        self._observing.begin(self._handle)
        work = self._work(engine, served, warm_up)
        self._handle.drift = self._reference(served)
        return work

    def _handle_of(
        self,
        engine: Engine,
        served: Engine,
        sequences: Sequences | None,
        signature: Signature,
        bounds: ModelBounds,
        batch_reason: str,
    ) -> Handle:
        """Open the queue, and return the handle that requests are sent by.

        Args:
            engine: of the first instance.
            served: the same as requests run on it: with states, if it has sequences.
            sequences: their states.
            signature: as callers are told it.
            bounds: of batches and of what waits.
            batch_reason: why its batches are as they are.
        """
        config, around = self._config, self._around
        dtypes = [tensor.dtype for tensor in served.signature.inputs]
        queue = self._queue = around.queues.open(dtypes, bounds.limits)
        return Handle(
            name=self.name,
            version=self.version,
            config=config,
            signature=signature,
            bounds=bounds,
            engine=engine.name,
            engine_reason=engine.reason,
            batch_reason=batch_reason,
            queue=queue,
            arena=Arena(
                bounds.max_queue_rows,
                bounds.max_queue_bytes,
                around.lanes,
                bounds.level_rows,
                bounds.levels,
            ),
            statistics=Statistics(around.metrics.of(self.name, self.version)),
            forecast=Forecast(bounds.limits, queue.costs, config.instances),
            number=queue.number,
            plan_state=engine.plan_state.value,
            file_name=self._files.model.name,
            largest_sequence_id=largest_sequence_id(served),
            sequences=sequences,
            declared=self._declared,
        )

    def _reference(self, served: Engine) -> str:
        """Return the key of what requests are compared with; "" where they are not."""
        around, runs = self._around, None if self._config.sequence is not None else served
        return reference_key(
            around.drift, self._made(), self._files, self._digest, runs, around.clock
        )

    def _told(self, signature: Signature, warm_up: WarmUp, bounds: ModelBounds) -> Signature:
        """Return the signature as callers are told it: outputs as they come."""
        batched = bounds.max_batch_size > 0
        signature = batched_signature(signature) if batched else signature
        if self._config.warm_up == [] or not self._fits(signature):
            return signature
        reshaped = {one.name for one in self._declared if one.reshape is not None}
        outputs = {n: seen for n, seen in warm_up.outputs().items() if n not in reshaped}
        seen, differing = as_seen(signature, outputs, batched=batched)
        for why in differing:
            where = {"model": self.name, "version": self.version, "why": why}
            log.warning("an output is not as the model declares it", extra=where)
        return seen

    def _fits(self, signature: Signature) -> bool:
        """True if a message could hold the inputs of a row."""
        return row_bytes(signature) <= self._around.trials.budget.input_bytes

    def _remark(self, signature: Signature, bounds: ModelBounds) -> None:
        """Say what of the model's settings is not as it was meant."""
        config, where = self._config, {"model": self.name, "version": self.version}
        rows = config.max_queue_rows or self._around.defaults.max_queue_rows
        for remark in remarks(config, signature, bounds, rows):
            log.warning("a setting of a model has no effect", extra={**where, "why": remark})

    def later(self, engine: Engine) -> Work:
        """Warm an engine like the first one."""
        self._before = self._around.trials.budget.resident()
        bounds = self._made().bounds
        warm_up = WarmUp(engine, self._own, bounds.max_batch_size > 0)
        return self._work(engine, self._served(engine, bounds, self._made().sequences), warm_up)

    def finish(self, instances: Sequence[Instance]) -> Handle:
        """Start the instances, one after the other, and return the handle of all.

        Raises:
            EngineError: one of them cannot be opened; the others end.
        """
        try:
            for instance in instances:
                instance.start().result()
        except BaseException:
            if self._handle is not None:
                self._handle.queue.close()
            raise
        handle = self._made()
        handle.instances = instances
        return handle

    def lost(self, error: BaseException) -> None:
        """End the handle after one of its engines was lost."""
        handle = self._made()
        handle.lose(error)
        self._lost(handle)

    def _made(self) -> Handle:
        assert self._handle is not None
        return self._handle

    def _check_size(self, engine: Engine) -> None:
        """Refuse a model that no request could be sent to.

        Raises:
            EngineError: the inputs of one row are larger than all that may wait.
        """
        least, most = row_bytes(engine.signature), self._around.defaults.max_queue_bytes
        if least > most:
            raise EngineError(
                f"the inputs of one row take {least} bytes, and max_queue_bytes is {most}"
            )

    def _check_told(self, signature: Signature, *, batched: bool) -> None:
        """Refuse a model that has not what its settings say of inputs and outputs.

        Raises:
            EngineError: it has not.
        """
        check_formats(self._config.format, signature, batched=batched)
        check_masks(self._config.recording.masks, signature)
        check_declared(self._declared, signature, batched=batched)
        if self._config.feedback is not None:
            check_predicting(signature, self._config)

    def _batching(self, engine: Engine) -> Batching:
        """Find out how to batch, and say so where that is not proven or cannot be."""
        asked, trials = self._config.max_batch_size, self._around.trials
        facts = ModelFacts() if asked == 0 else self._facts()
        default = self._around.defaults.max_batch_size
        room = self._rows_with_room(engine, default if asked is None else asked)
        if room == 1:
            return Batching(0, "there is no memory for runs of two rows")
        batching = find_batching(
            engine.signature,
            asked and min(asked, room),
            min(default, room),
            facts,
            lambda most: trials.verdict(engine, facts, most, self._own, self._digest),
        )
        where = {"model": self.name, "version": self.version, "why": batching.reason}
        if batching.max_batch_size and not batching.proven:
            log.warning("requests share runs as asked, and may change each other", extra=where)
        elif asked is None and not batching.max_batch_size:
            log.warning("requests share no runs", extra=where)
        return batching

    def _rows_with_room(self, engine: Engine, most: int) -> int:
        """Return the rows of a batch, at most so many, whose runs do not use up the memory."""
        if most < 2 or fixed_input(engine.signature):
            return max(2, most)
        if self._most_rows is not None:
            return min(most, self._most_rows)
        if CPU not in engine.name:
            # Of a GPU's memory nothing is known here.
            return most
        warm_up = WarmUp(engine, self._own, batched=True)
        room = rows_with_room(warm_up.warm, most, self._around.memory)
        if room < most:
            where = {"model": self.name, "version": self.version}
            log.warning(
                "larger batches would use up the memory",
                extra={**where, "max_batch_size": most, "lowered_to": room},
            )
        return room

    def _facts(self) -> ModelFacts:
        """Return what the file tells; engines that read none say themselves what is wrong."""
        try:
            return read_facts(self._files.content())
        except EngineError:
            return ModelFacts()

    def _digest(self) -> str:
        """Return what the verdict on the rows depends on; "" if the files cannot be read."""
        try:
            return content_digest(self._files, self._config)
        except EngineError:
            return ""

    def _work(self, engine: Engine, served: Engine, warm_up: WarmUp) -> Work:
        handle = self._made()
        if self._fits(engine.signature):
            warm(warm_up, self._config, handle.bounds.limits.max_rows, model=self.name)
        else:
            warm_up.reason = "not warmed: one row is larger than a message may be"
        handle.warm_reason, handle.takes_zeros = warm_up.reason, warm_up.takes_zeros
        handle.last_request = LastRequest() if warm_up.reason else None
        host = self._host(engine, warm_up, handle)
        inputs = engine.signature.inputs
        self._around.trials.give_back(
            engine,
            lambda: {tensor.name: zeros(tensor, 1) for tensor in inputs},
            self._before,
            SPARE_WARM,
        )
        queue = self._queue
        assert queue is not None
        turn = self._turn(queue)
        runner = self._runner(served, queue, turn)
        loop = None
        if isinstance(served, Overlapping):
            loop = Overlap(queue, runner, turn).run
        parks = host is None and loop is None and CPU in engine.name
        return Work(queue, runner, host, loop, turn, parks)

    def _turn(self, queue: BatchQueue[Any]) -> Turn | None:
        """Return what an engine takes for each run; None where all may run at a time."""
        share, clock = self._around.share, self._around.clock
        if not share.concurrent:
            return None
        return Turn(share, self._member, clock, lambda: queue.rows > 0)

    def _runner(self, engine: Engine, queue: BatchQueue[Any], turn: Turn | None) -> Runner[Any]:
        """Return what runs the batches of a queue on an engine, which reads rows in place."""
        around = self._around
        remote = around.queues.memory
        if isinstance(engine, Registering):
            for memory in remote:
                engine.register(memory)
        handle = self._made()
        runner: Runner[Any] = Runner(
            engine,
            handle.batched,
            self._observing,
            around.clock,
            about={"model": self.name, "version": self.version},
            turn=turn,
            end=around.end,
            costs=queue.costs,
            finished=queue.finished,
        )
        handle.busy.append(runner.busy)
        return runner

    def _sequences(self) -> Sequences | None:
        sequence = self._config.sequence
        if sequence is None:
            return None
        return Sequences(sequence.max_sequences, sequence.idle_s, self._around.clock)

    def _served(self, engine: Engine, bounds: ModelBounds, kept: Sequences | None) -> Engine:
        """Return the engine as batches reach it, with what sequences left."""
        sequence = self._config.sequence
        engine = with_optional_inputs(engine, batched=bounds.max_batch_size > 0)
        # Models of small rows keep little, and are not asked for the size of each run.
        rows = bounds.limits.max_rows * row_bytes(engine.signature)
        if rows >= LARGE_BATCH or free_dimensions(engine.signature, bounds.max_batch_size > 0):
            engine = shrinking(engine, self._around.clock, give_back)
        engine = reshaping(engine, self._declared, batched=bounds.max_batch_size > 0)
        if sequence is None or kept is None:
            return engine
        batched = bounds.max_batch_size > 0
        return StatefulEngine(engine, sequence.states, kept, sequence.controls, batched=batched)

    def _host(self, engine: Engine, warm_up: WarmUp, handle: Handle) -> InlineLoop | None:
        """Return who runs the batches; None: the instance's own thread."""
        around, config = self._around, self._config
        # The transport's thread waits for no turn; and requests whose answers are kept may be
        # admitted by a thread that cannot wake it.
        if around.inline is None or around.share.concurrent or config.response_cache is not None:
            return None
        rows = max(1, handle.bounds.max_batch_size)
        seconds = None
        if rows * row_bytes(engine.signature) <= around.trials.budget.input_bytes:
            seconds = run_seconds(warm_up, 1, around.clock)
        if seconds is not None and seconds <= longest(around.asked):
            seconds = run_seconds(warm_up, rows, around.clock)
        fixed = not free_dimensions(handle.signature, handle.batched)
        little = fixed and text_in(engine.signature, rows) <= MOST_TEXT
        predictable = CPU in engine.name and engine.steady and little
        why = why_not_inline(around.asked, config.instances, predictable, seconds)
        handle.arrangement = "threads" if why else "inline"
        if why and around.asked == "inline":
            about = {"model": self.name, "version": self.version, "why": why}
            log.warning("a model does not run inline, but on a thread", extra=about)
        return None if why else around.inline


def check_formats(
    formats: Mapping[str, ImageFormat], signature: Signature, *, batched: bool
) -> None:
    """See whether what model.yaml calls images are.

    Raises:
        EngineError: there is no such input, or it has not three dimensions behind the batch.
    """
    inputs = {tensor.name: tensor for tensor in signature.inputs}
    for name, image in formats.items():
        if name not in inputs:
            raise EngineError(f"format: there is no input {name!r}; there are {', '.join(inputs)}")
        rank = len(inputs[name].shape) - batched
        if rank != 3:
            raise EngineError(f"format: {image} has 3 dimensions, and input {name!r} has {rank}")


def check_predicting(signature: Signature, config: ModelConfig) -> None:
    """See whether the output whose classes are predictions can be told.

    Raises:
        EngineError: it cannot.
    """
    try:
        predicting_output(signature, config)
    except InvalidInput as error:
        raise EngineError(f"feedback: {error}") from error


def check_masks(masks: Mapping[str, Mask], signature: Signature) -> None:
    """See whether what model.yaml hides from the recording is there: a slip would hide nothing.

    Raises:
        EngineError: there is no such input or output, or it is no text that could be hashed.
    """
    known = {tensor.name: tensor for tensor in (*signature.inputs, *signature.outputs)}
    for name, mask in masks.items():
        if name not in known:
            there = ", ".join(known)
            raise EngineError(f"recording: there is no tensor {name!r}; there are {there}")
        if mask == "hash" and not known[name].dtype.hasobject:
            datatype = datatype_of(known[name].dtype)
            raise EngineError(f"recording: {name!r} is {datatype}, and only BYTES can be hashed")


def text_in(signature: Signature, rows: int) -> int:
    """Return how many elements of text so many rows of inputs with fixed shapes have."""
    return sum(
        math.prod(rows if size is None else size for size in tensor.shape)
        for tensor in signature.inputs
        if tensor.dtype == object
    )
