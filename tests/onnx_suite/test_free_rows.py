"""ONNX' own test models with a free first dimension: requests that share runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from inferd_client import Client

from .cases import Array, Case, all_cases, fed_inputs
from .runtime import Fate, expected
from .test_backend_suite import lay_out, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EACH = 9
AT_ONCE = 6


@pytest.mark.parametrize("flags", [(), ("--processes", "split")], ids=["one process", "split"])
def test_requests_at_one_time_are_answered_as_onnx_runtime_does(
    tmp_path: Path, flags: Sequence[str]
) -> None:
    freed = [case for one in all_cases() if (case := with_free_rows(one)) is not None][::EACH]
    pairs = [(case, made) for case in freed if (made := expected(case)).fate is Fate.SERVED]
    for case, _ in pairs:
        lay_out(case, tmp_path, "")
    with serving(tmp_path, flags) as client:
        models = client.status().models
        assert sum(model.max_batch_size > 1 for model in models) > len(pairs) / 2
        for case, made in pairs:
            for answers in ask_at_once(client, case):
                compare(case.name, answers, made.outputs)


def with_free_rows(case: Case) -> Case | None:
    """Return the case with a free first dimension; None if its inputs do not share one."""
    arrays = case.inputs.values()
    if case.random or not arrays or any(array.ndim < 2 for array in arrays):
        return None
    model = onnx.load_from_string(case.content)
    values = [*fed_inputs(model.graph), *model.graph.output]
    shapes = [value.type.tensor_type.shape for value in values]
    if len({len(array) for array in arrays}) > 1 or not all(shape.dim for shape in shapes):
        return None
    for shape in shapes:
        shape.dim[0].Clear()
        shape.dim[0].dim_param = "N"
    model.graph.ClearField("value_info")
    return replace(case, content=model.SerializeToString())


def ask_at_once(client: Client, case: Case) -> list[Mapping[str, Array]]:
    """Send one request several times, all of them in flight together."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        asked = [pool.submit(client.infer, case.name, inputs=case.inputs) for _ in range(AT_ONCE)]
        return [one.result().outputs for one in asked]


def compare(name: str, got: Mapping[str, Array], wanted: Mapping[str, Array]) -> None:
    """Hold answers to ONNX Runtime's own, with what the size of a batch may change in a sum."""
    for output, right in wanted.items():
        if right.dtype == object:
            assert [one.decode() for one in got[output].flat] == list(right.flat), name
            continue
        loose = 1e-3 if right.itemsize > 2 else 2e-2
        pair = (got[output].astype(np.float64), right.astype(np.float64))
        np.testing.assert_allclose(*pair, rtol=loose, atol=1e-5, err_msg=f"{name} {output}")
