"""CUDA graphs through libcuda: pycuda has none.

Source: CUDA driver API, cuStreamBeginCapture and following. Streams are their integer handles.
"""

from __future__ import annotations

import ctypes
from typing import Any, Protocol, TypeAlias

from inferd_engines.tensorrt.device import LIBCUDA
from inferd_engines.tensorrt.errors import TensorRTError

THREAD_LOCAL = 1
"""Capture mode in which other threads may go on calling CUDA."""
Graph: TypeAlias = Any
Executable: TypeAlias = Any


class Graphs(Protocol):
    """What the engine needs of CUDA graphs."""

    def begin(self, stream: int) -> None:
        """Begin to capture a stream."""

    def end(self, stream: int) -> Graph:
        """End the capture and return what was captured; the stream can be used again."""

    def instantiate(self, graph: Graph) -> Executable:
        """Make a graph ready to be launched."""

    def launch(self, executable: Executable, stream: int) -> None:
        """Run it on a stream."""

    def destroy(self, executable: Executable, graph: Graph) -> None:
        """Give both back."""


class DriverGraphs:
    """CUDA graphs of the driver's library. With the context current."""

    def __init__(self) -> None:
        """Load the library.

        Raises:
            TensorRTError: it is not there.
        """
        try:
            self._cuda = ctypes.CDLL(LIBCUDA)
        except OSError as error:
            raise TensorRTError(f"no CUDA graphs: {error}") from error
        pointer, number = ctypes.c_void_p, ctypes.c_uint
        out = ctypes.POINTER(pointer)
        for name, arguments in (
            ("cuStreamBeginCapture_v2", [pointer, number]),
            ("cuStreamEndCapture", [pointer, out]),
            ("cuGraphInstantiateWithFlags", [out, pointer, ctypes.c_ulonglong]),
            ("cuGraphLaunch", [pointer, pointer]),
            ("cuGraphExecDestroy", [pointer]),
            ("cuGraphDestroy", [pointer]),
            ("cuGetErrorName", [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]),
        ):
            getattr(self._cuda, name).argtypes = arguments

    def begin(self, stream: int) -> None:
        """Begin to capture a stream."""
        self._call("cuStreamBeginCapture_v2", stream, THREAD_LOCAL)

    def end(self, stream: int) -> Graph:
        """End the capture and return what was captured."""
        graph = ctypes.c_void_p()
        self._call("cuStreamEndCapture", stream, ctypes.byref(graph))
        return graph

    def instantiate(self, graph: Graph) -> Executable:
        """Make a graph ready to be launched."""
        executable = ctypes.c_void_p()
        self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
        return executable

    def launch(self, executable: Executable, stream: int) -> None:
        """Run it on a stream."""
        self._call("cuGraphLaunch", executable, stream)

    def destroy(self, executable: Executable, graph: Graph) -> None:
        """Give both back."""
        self._call("cuGraphExecDestroy", executable)
        self._call("cuGraphDestroy", graph)

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._cuda, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._cuda.cuGetErrorName(code, ctypes.byref(text))
            raise TensorRTError(f"{name} failed: {(text.value or b'?').decode()}")
