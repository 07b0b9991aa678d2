"""Calls of the driver that pycuda does not have, or does not survive, by ctypes.

Source: CUDA driver API. pycuda 2026.1 has no graphs, and its `register_host_memory` ends the
process.
"""

from __future__ import annotations

import ctypes
from typing import Any

from inferd_engines.tensorrt.errors import TensorRTError

LIBCUDA = "libcuda.so.1"
THREAD_LOCAL = 1
"""Capture mode in which other threads may go on calling CUDA."""
POINTER, SIZE = ctypes.c_void_p, ctypes.c_size_t
OUT = ctypes.POINTER(POINTER)
ARGUMENTS = {
    "cuStreamBeginCapture_v2": [POINTER, ctypes.c_uint],
    "cuStreamEndCapture": [POINTER, OUT],
    "cuGraphInstantiateWithFlags": [OUT, POINTER, ctypes.c_ulonglong],
    "cuGraphLaunch": [POINTER, POINTER],
    "cuGraphExecDestroy": [POINTER],
    "cuGraphDestroy": [POINTER],
    "cuMemHostRegister_v2": [POINTER, SIZE, ctypes.c_uint],
    "cuMemHostUnregister": [POINTER],
}


class DriverError(TensorRTError):
    """A call of the driver failed; the message has the call and the error's name."""


class Libcuda:
    """The driver's library. Any thread may call, with a context current."""

    def __init__(self) -> None:
        """Load it.

        Raises:
            DriverError: it is not there, or lacks a function.
        """
        try:
            self._library = ctypes.CDLL(LIBCUDA)
            self._functions = {name: getattr(self._library, name) for name in ARGUMENTS}
        except (OSError, AttributeError) as error:
            raise DriverError(f"the NVIDIA driver cannot be used: {error}") from error
        for name, arguments in ARGUMENTS.items():
            self._functions[name].argtypes = arguments
        self._launch = self._functions["cuGraphLaunch"]

    def begin_capture(self, stream: int) -> None:
        """Begin to capture a stream."""
        self._call("cuStreamBeginCapture_v2", stream, THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """End the capture, whatever became of it, and return the graph."""
        graph = POINTER()
        self._call("cuStreamEndCapture", stream, ctypes.byref(graph))
        return graph.value or 0

    def instantiate(self, graph: int) -> int:
        """Make a graph ready to be launched."""
        executable = POINTER()
        self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
        return executable.value or 0

    def launch(self, executable: int, stream: int) -> None:
        """Run it on a stream."""
        code = self._launch(executable, stream)
        if code:
            raise self._error("cuGraphLaunch", code)

    def destroy(self, graph: int) -> None:
        """Give a graph back."""
        self._call("cuGraphDestroy", graph)

    def destroy_executable(self, executable: int) -> None:
        """Give back what was made ready."""
        self._call("cuGraphExecDestroy", executable)

    def register(self, start: int, nbytes: int) -> None:
        """Lock whole pages of the host's memory, so that the GPU may read them."""
        self._call("cuMemHostRegister_v2", start, nbytes, 0)

    def unregister(self, start: int) -> None:
        """Unlock what was locked from this address on."""
        self._call("cuMemHostUnregister", start)

    def _call(self, name: str, *arguments: Any) -> None:
        code = self._functions[name](*arguments)
        if code:
            raise self._error(name, code)

    def _error(self, name: str, code: int) -> DriverError:
        symbol, text = ctypes.c_char_p(), ctypes.c_char_p()
        self._library.cuGetErrorName(code, ctypes.byref(symbol))
        self._library.cuGetErrorString(code, ctypes.byref(text))
        return DriverError(f"{name} failed: {said(text)} ({said(symbol)}, {code})")


def said(text: ctypes.c_char_p) -> str:
    """Return a text of the driver's; "?" for an error that it does not know."""
    return (text.value or b"?").decode()
