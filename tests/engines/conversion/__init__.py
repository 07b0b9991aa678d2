"""Tests of conversion: INT8, FP16, comparisons, exports."""
