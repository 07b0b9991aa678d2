"""The session config entries that ONNX Runtime knows; it ignores others without a word.

Source: onnxruntime_session_options_config_keys.h in microsoft/onnxruntime, each key checked to be
in the library of version 1.32; less what concerns saving models and compiling for other providers.
"""

from __future__ import annotations

SWITCHES = frozenset(
    {
        "mlas.disable_kleidiai",
        "mlas.use_lut_gemm",
        "optimization.enable_cast_chain_elimination",
        "optimization.enable_gelu_approximation",
        "session.allow_released_opsets_only",
        "session.disable_aot_function_inlining",
        "session.disable_cpu_ep_fallback",
        "session.disable_double_qdq_remover",
        "session.disable_prepacking",
        "session.disable_qdq_constant_folding",
        "session.disable_quant_qdq",
        "session.enable_dq_matmulnbits_fusion",
        "session.enable_quant_qdq_cleanup",
        "session.force_spinning_stop",
        "session.inter_op.allow_spinning",
        "session.intra_op.allow_spinning",
        "session.qdqisint8allowed",
        "session.set_denormal_as_zero",
        "session.strict_shape_type_inference",
        "session.use_device_allocator_for_initializers",
        "session.use_env_allocators",
        "session.use_memory_mapped_ort_model",
        "session.use_ort_model_bytes_directly",
        "session.use_ort_model_bytes_for_initializers",
        "session.x64quantprecision",
    }
)
NUMBERS = frozenset(
    {
        "session.dynamic_block_base",
        "session.inter_op.spin_backoff_max",
        "session.inter_op.spin_duration_us",
        "session.intra_op.spin_backoff_max",
        "session.intra_op.spin_duration_us",
        "session.qdq_matmulnbits_accuracy_level",
        "session.qdq_matmulnbits_block_size",
    }
)
TEXTS = frozenset(
    {
        "optimization.disable_specified_optimizers",
        "session.intra_op_thread_affinities",
        "session.load_model_format",
    }
)
ENTRIES = SWITCHES | NUMBERS | TEXTS


def entry_problem(name: str, value: str) -> str:
    """Say why a known entry cannot have a value, which ONNX Runtime would pass over; "" if it can.

    Args:
        name: of the entry.
        value: as ONNX Runtime takes it.
    """
    if name in SWITCHES and value not in {"0", "1"}:
        return f"{name} is {value!r}, and must be 0 or 1"
    if name in NUMBERS and not (value.isascii() and value.isdigit()):
        return f"{name} is {value!r}, and must be a whole number"
    return ""
