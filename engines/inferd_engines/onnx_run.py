"""Two ways of running an ONNX Runtime session: plain, and bound to the caller's buffers.

Measured on 2 cores, x86-64, ONNX Runtime 1.32, one MatMul: plain with a copy takes 9 us
where binding takes 16 (40 bytes out), 118 and 116 (400 kB), 461 and 347 (3.2 MB).
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from inferd_engines.arrays import write_into
from inferd_engines.engine import Array, EngineError, Signature, Tensor

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, IOBinding, OrtValue

BINDING_PAYS = 512 * 1024
"""Bytes of given outputs from which binding is cheaper than copying."""

BFLOAT16 = 16
"""TensorProto.BFLOAT16 in onnx.proto."""

BF16 = np.dtype(ml_dtypes.bfloat16)
STRING = np.dtype(np.object_)
CONVERTED = (BF16, STRING)
"""What the runtime takes and gives in another form than ours."""

STAND_INS = range(0x10FF00, 0x110000)
"""Characters of Unicode's private use area, each of which stands for a byte."""
ESCAPED = range(0xDC80, 0xDD00)
"""What Python decodes a byte that is not UTF-8 to. Source: PEP 383."""
FIRST_ESCAPED = 0x80


def wants_binding(signature: Signature, outputs: Mapping[str, Array]) -> bool:
    """Tell whether to bind: BF16 results come no other way, and for large buffers it pays.

    String inputs exclude it: ONNX Runtime does not bind them.
    """
    if any(tensor.dtype == BF16 for tensor in signature.outputs):
        return True
    size = sum(array.nbytes for array in outputs.values())
    return size >= BINDING_PAYS and all(tensor.dtype != STRING for tensor in signature.inputs)


def refuse_unreadable(signature: Signature) -> None:
    """Refuse the one combination that ONNX Runtime's Python API cannot run.

    Raises:
        EngineError: there are string inputs, which it does not bind, and BF16 outputs, which
            it gives to bindings only.
    """
    strings = any(tensor.dtype == STRING for tensor in signature.inputs)
    if strings and any(tensor.dtype == BF16 for tensor in signature.outputs):
        raise EngineError("ONNX Runtime's Python API cannot give BF16 outputs for string inputs")


def run_plain(
    session: InferenceSession,
    signature: Signature,
    inputs: Mapping[str, Array],
    outputs: Mapping[str, Array],
) -> dict[str, Array]:
    """Let the runtime allocate the results, then copy them into the buffers given.

    Raises:
        EngineError: text is not UTF-8, or a buffer does not fit its output.
    """
    feed = {tensor.name: to_runtime(tensor, inputs[tensor.name]) for tensor in signature.inputs}
    values = session.run([tensor.name for tensor in signature.outputs], feed)
    results = zip(signature.outputs, values, strict=True)
    return {tensor.name: deliver(tensor, value, outputs) for tensor, value in results}


def run_bound(
    session: InferenceSession,
    signature: Signature,
    inputs: Mapping[str, Array],
    outputs: Mapping[str, Array],
) -> dict[str, Array]:
    """Let the runtime read and write the caller's memory; inputs are not strings.

    Raises:
        EngineError: a buffer does not fit its output.
    """
    binding = session.io_binding()
    # A binding holds bare addresses: `held` keeps the arrays alive until the run is over.
    held = [bind_input(binding, tensor, inputs[tensor.name]) for tensor in signature.inputs]
    bound = {
        tensor.name: outputs[tensor.name]
        for tensor in signature.outputs
        if bindable(tensor, outputs)
    }
    for tensor in signature.outputs:
        bind_output(binding, tensor, bound.get(tensor.name))
    session.run_with_iobinding(binding)
    del held
    values = zip(signature.outputs, binding.get_outputs(), strict=True)
    return {
        tensor.name: bound[tensor.name]
        if tensor.name in bound
        else deliver(tensor, from_runtime(tensor, value), outputs)
        for tensor, value in values
    }


def shrink_arena(
    session: InferenceSession, signature: Signature, inputs: Mapping[str, Array]
) -> None:
    """Run once, and let the arena of the processor free what no run uses then.

    Raises:
        EngineError: text is not UTF-8.
    """
    from onnxruntime import RunOptions

    options = RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    feed = {tensor.name: to_runtime(tensor, inputs[tensor.name]) for tensor in signature.inputs}
    session.run([], feed, options)


def bindable(tensor: Tensor, outputs: Mapping[str, Array]) -> bool:
    """Tell whether the runtime can write into the buffer given for this output, if any."""
    buffer = outputs.get(tensor.name)
    return (
        buffer is not None
        and buffer.dtype == tensor.dtype != STRING
        and buffer.flags.c_contiguous
        and buffer.flags.writeable
    )


def bind_input(binding: IOBinding, tensor: Tensor, array: Array) -> Array:
    """Bind an input by address and return the array that the address belongs to."""
    array = np.ascontiguousarray(array).reshape(array.shape)
    kind = element_type(tensor)
    binding.bind_input(tensor.name, "cpu", 0, kind, array.shape, array.ctypes.data)
    return array


def bind_output(binding: IOBinding, tensor: Tensor, buffer: Array | None) -> None:
    """Bind an output to a buffer, or to memory that the runtime allocates."""
    if buffer is None:
        binding.bind_output(tensor.name, "cpu")
        return
    kind = element_type(tensor)
    binding.bind_output(tensor.name, "cpu", 0, kind, buffer.shape, buffer.ctypes.data)


def element_type(tensor: Tensor) -> Any:
    """Return a dtype as bindings take it: BF16, which numpy lacks, by its ONNX number."""
    return BFLOAT16 if tensor.dtype == BF16 else tensor.dtype.type


def to_runtime(tensor: Tensor, array: Array) -> Array | OrtValue:
    """Return an input as `InferenceSession.run` takes it.

    Raises:
        EngineError: text is not UTF-8.
    """
    if tensor.dtype == STRING:
        return decode_text(tensor, array)
    if tensor.dtype == BF16:
        from onnxruntime import OrtValue

        return OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), BFLOAT16)
    return array


def from_runtime(tensor: Tensor, value: OrtValue) -> Array:
    """Return a result as an array; BF16, which ONNX Runtime does not convert, by address."""
    if tensor.dtype != BF16:
        return np.asarray(value.numpy())
    result = np.empty(value.shape(), dtype=BF16)
    ctypes.memmove(result.ctypes.data, value.data_ptr(), result.nbytes)
    return result


def deliver(tensor: Tensor, result: Array, outputs: Mapping[str, Array]) -> Array:
    """Return the result, in the buffer given for it where there is one.

    Raises:
        EngineError: the buffer is of another shape or dtype than the result.
    """
    result = encode_text(tensor, result) if tensor.dtype == STRING else np.asarray(result)
    buffer = outputs.get(tensor.name)
    return result if buffer is None else write_into(buffer, tensor, result)


def decode_text(tensor: Tensor, array: Array) -> Array:
    """Turn `bytes` elements into `str`: ONNX Runtime would take their repr().

    Its Python API takes UTF-8 only. Bytes of other kinds go as characters that stand for them,
    where the model only moves text, or compares it as a whole.

    Raises:
        EngineError: an element is not UTF-8, and the model may look into it.
    """
    text = np.empty(array.size, dtype=np.object_)
    try:
        for index, element in enumerate(array.reshape(-1).tolist()):
            text[index] = text_of(element, strict=tensor.text)
    except UnicodeDecodeError:
        raise EngineError(
            f"input {tensor.name!r}: element {index} is not UTF-8 text", bad_input=True
        ) from None
    return text.reshape(array.shape)


def encode_text(tensor: Tensor, array: Array) -> Array:
    """Turn `str` elements into `bytes`, as the protocol's BYTES elements are."""
    data = np.empty(array.size, dtype=np.object_)
    for index, element in enumerate(array.reshape(-1).tolist()):
        data[index] = element.encode() if tensor.text else bytes_of(element)
    return data.reshape(array.shape)


def text_of(element: bytes | str, *, strict: bool) -> str:
    """Return an element as text; two elements that differ never become the same one.

    Raises:
        UnicodeDecodeError: it is not UTF-8, and `strict` demands that.
    """
    if isinstance(element, str):
        return element
    try:
        text = element.decode()
    except UnicodeDecodeError:
        if strict:
            raise
    else:
        # Text that has one of the characters itself must not be taken for what they stand for.
        if strict or text.isascii() or not any(map(is_stand_in, text)):
            return text
    whole = element.decode(errors="surrogateescape")
    return "".join(map(_stand_in, whole))


def bytes_of(text: str) -> bytes:
    """Return the element that `text_of` made a text of."""
    if text.isascii() or not any(map(is_stand_in, text)):
        return text.encode()
    return b"".join(
        bytes([ord(one) - STAND_INS.start]) if is_stand_in(one) else one.encode() for one in text
    )


def is_stand_in(character: str) -> bool:
    """Tell whether a character stands for a byte."""
    return ord(character) in STAND_INS


def _stand_in(character: str) -> str:
    """Return what stands for a character that UTF-8 lacks, or that stands for a byte."""
    code = ord(character)
    if code in ESCAPED:
        return chr(STAND_INS.start + code - ESCAPED.start + FIRST_ESCAPED)
    if code in STAND_INS:
        return "".join(chr(STAND_INS.start + byte) for byte in character.encode())
    return character
