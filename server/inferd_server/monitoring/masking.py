"""Masks: what of a request and its answer may be recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from inferd.recording import Recorded
from inferd.tensors import Array

from inferd_server.monitoring.samples import Sample

HASH_BYTES = 16


def masked(sample: Sample, key: bytes) -> Recorded | None:
    """Return what of a sample may be recorded; None: nothing.

    Args:
        sample: with the rules of its model.
        key: secret, for hashes of texts.
    """
    rules = sample.recording
    if not (rules.inputs or rules.outputs):
        return None
    return Recorded(
        sample.model,
        sample.version,
        sample.id,
        sample.at,
        _applied(sample.inputs, rules.masks, key) if rules.inputs else {},
        _applied(sample.outputs, rules.masks, key) if rules.outputs else {},
        sample.parameters,
        [name for name in sample.inputs if not rules.inputs or name in rules.masks],
        [name for name in sample.outputs if not rules.outputs or name in rules.masks],
    )


def _applied(
    arrays: Mapping[str, Array], masks: Mapping[str, str], key: bytes
) -> Mapping[str, Array]:
    """Return the tensors without what the masks hide."""
    found: dict[str, Array] = {}
    for name, array in arrays.items():
        mask = masks.get(name)
        if mask is None:
            found[name] = array
        elif mask == "zeros":
            found[name] = np.full(array.shape, b"" if array.dtype.hasobject else 0, array.dtype)
        elif mask == "hash":
            found[name] = hashes(array, key)
    return found


def hashes(array: Array, key: bytes) -> Array:
    """Return texts as keyed hashes, equal where the texts are."""
    found = np.empty(array.size, np.object_)
    for index, element in enumerate(array.reshape(-1).tolist()):
        text = element if isinstance(element, bytes) else str(element).encode()
        digest = hashlib.blake2b(text, digest_size=HASH_BYTES, key=key)
        found[index] = digest.hexdigest().encode()
    return found.reshape(array.shape)
