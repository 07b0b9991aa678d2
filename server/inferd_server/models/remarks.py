"""Remarks on a model.yaml that can be used and still is not what was meant."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from inferd_engines.engine import Signature, Tensor

from inferd_server.models.config import ModelConfig
from inferd_server.models.version import ModelBounds


def remarks(config: ModelConfig, signature: Signature, bounds: ModelBounds, rows: int) -> list[str]:
    """Return a sentence for each setting of a model that has no effect, or another one.

    Args:
        config: the model.yaml.
        signature: of the model.
        bounds: that follow from both.
        rows: asked for as the bound of the queue, here or for all models.
    """
    return [
        *_of_outputs(config, signature.outputs),
        *_of_batches(config, max(1, bounds.max_batch_size)),
        *_of_queues(config, bounds.max_batch_size, rows),
        *_of_answers(config, signature.outputs, bounds.max_batch_size > 0),
    ]


def _of_outputs(config: ModelConfig, outputs: Sequence[Tensor]) -> Iterator[str]:
    there = [tensor.name for tensor in outputs]
    for name in config.labels:
        if name not in there:
            yield f"labels names {name!r}, and the outputs are {', '.join(there)}"


def _of_batches(config: ModelConfig, most: int) -> Iterator[str]:
    for rows in () if isinstance(config.warm_up, str) else config.warm_up or ():
        if rows > most:
            yield f"warm_up names {rows} rows, and a batch has {most} at most"
    preferred = config.preferred_rows or 0
    if preferred > most:
        yield f"preferred_batch_size is {preferred}, and a batch has {most} at most"


def _of_queues(config: ModelConfig, most: int, rows: int) -> Iterator[str]:
    if rows < most:
        yield f"max_queue_rows is {rows}, and raised to {most}, which one request may bring"
    for level, allowed in config.priority_queue_rows.items():
        if allowed < most:
            yield (
                f"priority_queue_rows lets {allowed} rows wait at priority {level}: a request of "
                f"more is always refused, and one may bring {most}"
            )


def _of_answers(config: ModelConfig, outputs: Sequence[Tensor], batched: bool) -> Iterator[str]:
    cache = config.response_cache
    if cache is None:
        return
    if config.sequence is not None:
        yield "response_cache has no effect on requests of a sequence, which are never kept"
    least = sum(bytes_of(tensor, batched) for tensor in outputs)
    if cache.max_bytes is not None and cache.max_bytes < least:
        yield f"response_cache.max_bytes is {cache.max_bytes}, and an answer has {least} and more"


def bytes_of(tensor: Tensor, batched: bool) -> int:
    """Return the bytes of one row, free dimensions taken as 1; strings as nothing."""
    shape = tensor.shape[int(batched) :]
    size = 0 if tensor.dtype.hasobject else tensor.dtype.itemsize
    return size * math.prod(1 if length is None else length for length in shape)
