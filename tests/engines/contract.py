"""What every engine must do. A test class per engine inherits it and says how to open one."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from inferd_engines.engine import Engine, EngineError

from tests.engines.cases import ADD_SUB, CASES, FREE_DIMS, NO_BATCH, Case


class EngineContract:
    """The behaviour behind `inferd_engines.engine.Engine`."""

    CASES: Sequence[Case] = CASES
    """What `case` goes through (conftest.py); an engine that lacks a datatype has fewer."""

    def open(self, case: Case, folder: Path) -> Engine:
        """Return an engine that serves the case's model."""
        raise NotImplementedError

    def test_signature_is_that_of_the_model(self, case: Case, tmp_path: Path) -> None:
        assert self.open(case, tmp_path).signature == case.signature

    def test_every_output_is_returned_in_the_dtype_of_the_signature(
        self, case: Case, tmp_path: Path
    ) -> None:
        inputs = case.inputs(rows=5)
        results = self.open(case, tmp_path).run(inputs, {}, 5)
        assert set(results) == {tensor.name for tensor in case.signature.outputs}
        for tensor in case.signature.outputs:
            assert results[tensor.name].dtype == tensor.dtype
            np.testing.assert_array_equal(results[tensor.name], case.compute(inputs)[tensor.name])

    def test_given_outputs_are_written_in_place(self, case: Case, tmp_path: Path) -> None:
        inputs = case.inputs(rows=5)
        expected = case.compute(inputs)
        buffers = {name: np.zeros_like(array) for name, array in expected.items()}
        results = self.open(case, tmp_path).run(inputs, buffers, 5)
        for name, buffer in buffers.items():
            assert results[name] is buffer
            np.testing.assert_array_equal(buffer, expected[name])

    def test_outputs_may_be_given_in_part(self, tmp_path: Path) -> None:
        inputs = ADD_SUB.inputs(rows=2)
        buffer = np.zeros((2, 16), dtype=np.int32)
        results = self.open(ADD_SUB, tmp_path).run(inputs, {"OUTPUT1": buffer}, 2)
        assert results["OUTPUT1"] is buffer
        np.testing.assert_array_equal(results["OUTPUT0"], inputs["INPUT0"] + inputs["INPUT1"])

    def test_large_given_outputs_are_written_in_place(self, tmp_path: Path) -> None:
        inputs = FREE_DIMS.inputs(rows=8, free=100_000)
        buffer = np.zeros((8, 100_000), dtype=np.float32)
        results = self.open(FREE_DIMS, tmp_path).run(inputs, {"OUTPUT0": buffer}, 8)
        assert results["OUTPUT0"] is buffer
        np.testing.assert_array_equal(buffer, inputs["INPUT0"] * 2)

    def test_results_stay_when_the_engine_runs_again(self, tmp_path: Path) -> None:
        engine, first = self.open(FREE_DIMS, tmp_path), FREE_DIMS.inputs(rows=2)
        kept = engine.run(first, {}, 2)["OUTPUT0"]
        engine.run({"INPUT0": first["INPUT0"] + 7}, {}, 2)
        np.testing.assert_array_equal(kept, first["INPUT0"] * 2)

    def test_results_outlive_the_engine(self, case: Case, tmp_path: Path) -> None:
        engine, inputs = self.open(case, tmp_path), case.inputs(rows=64)
        expected = case.compute(inputs)
        results = engine.run(inputs, {}, 64)
        engine.close()
        del engine, inputs
        gc.collect()
        for name, result in results.items():
            np.testing.assert_array_equal(result, expected[name])

    def test_zero_rows_give_zero_rows(self, batching_case: Case, tmp_path: Path) -> None:
        inputs = batching_case.inputs(rows=0)
        results = self.open(batching_case, tmp_path).run(inputs, {}, 0)
        for tensor in batching_case.signature.outputs:
            assert results[tensor.name].shape[0] == 0

    @pytest.mark.parametrize(("rows", "free"), [(1, 1), (3, 5), (2, 9)])
    def test_free_dimensions_change_from_run_to_run(
        self, rows: int, free: int, tmp_path: Path
    ) -> None:
        engine = self.open(FREE_DIMS, tmp_path)
        engine.run(FREE_DIMS.inputs(rows=4, free=4), {}, 4)
        result = engine.run(FREE_DIMS.inputs(rows, free), {}, rows)["OUTPUT0"]
        assert result.shape == (rows, free)

    def test_it_warms_at_any_batch_size(self, case: Case, tmp_path: Path) -> None:
        engine = self.open(case, tmp_path)
        for rows in (1, 8):
            engine.warm(rows)
        assert engine.run(case.inputs(rows=1), {}, 1)

    def test_a_missing_input_is_named(self, tmp_path: Path) -> None:
        inputs = ADD_SUB.inputs(rows=1)
        del inputs["INPUT1"]
        with pytest.raises(EngineError, match="INPUT1"):
            self.open(ADD_SUB, tmp_path).run(inputs, {}, 1)

    def test_another_dtype_is_refused(self, tmp_path: Path) -> None:
        inputs = ADD_SUB.inputs(rows=1)
        inputs["INPUT1"] = inputs["INPUT1"].astype(np.int64)
        with pytest.raises(EngineError, match="INPUT1"):
            self.open(ADD_SUB, tmp_path).run(inputs, {}, 1)

    def test_another_shape_is_refused_and_the_engine_goes_on(self, tmp_path: Path) -> None:
        engine = self.open(NO_BATCH, tmp_path)
        with pytest.raises(EngineError, match="INPUT0") as refused:
            engine.run({"INPUT0": np.zeros((3, 5), dtype=np.float32)}, {}, 1)
        assert not refused.value.fatal
        assert engine.run(NO_BATCH.inputs(rows=1), {}, 1)["OUTPUT0"].shape == (3, 2)

    @pytest.mark.parametrize("free", [3, 100_000])
    def test_a_buffer_that_does_not_fit_is_refused(self, free: int, tmp_path: Path) -> None:
        buffer = np.zeros((2, free + 1), dtype=np.float32)
        with pytest.raises(EngineError, match="OUTPUT0"):
            self.open(FREE_DIMS, tmp_path).run(
                FREE_DIMS.inputs(rows=2, free=free), {"OUTPUT0": buffer}, 2
            )

    def test_it_closes_twice_and_runs_no_more(self, tmp_path: Path) -> None:
        engine = self.open(NO_BATCH, tmp_path)
        engine.close()
        engine.close()
        with pytest.raises(EngineError, match="closed"):
            engine.run(NO_BATCH.inputs(rows=1), {}, 1)

    def test_it_says_what_serves(self, tmp_path: Path) -> None:
        engine = self.open(NO_BATCH, tmp_path)
        runtime, _, device = engine.name.partition("/")
        assert runtime
        assert device
        assert engine.reason == ""
        assert engine.memory() >= 0
        assert all(bucket > 0 for bucket in engine.buckets)
