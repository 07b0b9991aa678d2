"""A double for `pycuda.driver` that is as unforgiving as a GPU.

Asynchronous work is done only when its stream or event is waited for, in the order of its
stream; memory is poisoned when it is taken and when it is given back; addresses are checked
for bounds, alignment and lifetime, calls for a current context and the right thread. A wait that
is missing gives wrong data here, every time.
"""

from __future__ import annotations

import ctypes
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

POISON = 0xA5
FIRST_ADDRESS = 0x7F00_0000_0000
GRAIN = 512
"""Bytes that allocations are aligned to."""
PAGE = 4096
DISABLE_TIMING = 2

Operation = Callable[[], None]


class Error(Exception):
    """As pycuda's."""


class LogicError(Error):
    """As pycuda's."""


class LaunchError(Error):
    """As pycuda's."""


class MemoryError(Error):  # noqa: A001 pycuda calls it that
    """As pycuda's."""


class RuntimeError(Error):  # noqa: A001 pycuda calls it that
    """As pycuda's."""


@dataclass(eq=False)
class Allocation:
    """A piece of device memory."""

    driver: FakeDriver
    address: int
    memory: bytearray
    freed: bool = False

    def __int__(self) -> int:
        return self.address

    def free(self) -> None:
        """Give it back."""
        self.driver.check("mem_free")
        if self.freed:
            raise LogicError("cuMemFree failed: invalid argument")
        self.freed = True
        self.memory[:] = bytes([POISON]) * len(self.memory)


@dataclass(eq=False)
class Context:
    """The primary context of the one device."""

    driver: FakeDriver
    handle: int = 0xC0

    def push(self) -> None:
        """Make it current on this thread."""
        self.driver.stack.append(self)

    def pop(self) -> None:
        """Take it from this thread."""
        if not self.driver.stack:
            raise LogicError("cuCtxPopCurrent failed: invalid device context")
        self.driver.stack.pop()

    def synchronize(self) -> None:
        """Let all streams finish."""
        self.driver.check("ctx_synchronize")
        for stream in self.driver.streams:
            stream.run()


class RegisteredHostMemory:
    """Pages that are locked; the base of the array that is given for them."""

    def __init__(self, driver: FakeDriver, array: Any) -> None:
        self.driver = driver
        self.start = array.ctypes.data
        self.end = self.start + array.nbytes
        self.__array_interface__ = array.__array_interface__
        self._kept = array

    def unregister(self) -> None:
        """Unlock them."""
        self.driver.check("unregister")
        if self not in self.driver.registered:
            raise LogicError("cuMemHostUnregister failed: invalid handle")
        self.driver.registered.remove(self)
        del self._kept

    def covers(self, start: int, nbytes: int) -> bool:
        """True if all of these bytes are locked."""
        return self.start <= start and start + nbytes <= self.end


class Stream:
    """Work in order, done when somebody waits for it."""

    def __init__(self, driver: FakeDriver, flags: int) -> None:
        driver.check("stream")
        self.driver = driver
        self.flags = flags
        self.handle = 0x5000 + len(driver.streams)
        self.pending: deque[Operation] = deque()
        self.captured: list[Operation] | None = None
        driver.streams.append(self)

    def enqueue(self, operation: Operation) -> None:
        """Add work, or record it while the stream is captured."""
        self.driver.check("enqueue")
        if self.captured is not None:
            self.captured.append(operation)
        else:
            self.pending.append(operation)

    def run(self) -> None:
        """Do everything that is pending."""
        while self.pending:
            self.step()

    def step(self) -> None:
        """Do the next thing that is pending, which takes a millisecond of the device's clock."""
        self.driver.now_ms += 1
        self.pending.popleft()()

    def synchronize(self) -> None:
        """Wait for everything that was added."""
        self.driver.check("synchronize")
        if self.captured is not None:
            raise LogicError("operation not permitted when stream is capturing")
        self.run()

    def wait_for_event(self, event: Event) -> None:
        """Let what follows wait for an event, as it is recorded now."""
        mark = event.mark
        if mark is not None:
            self.enqueue(mark.reach)

    def is_done(self) -> bool:
        """True if nothing is pending."""
        self.driver.check("is_done")
        return not self.pending


@dataclass(eq=False)
class Mark:
    """A place in a stream."""

    stream: Stream
    reached: bool = False
    at_ms: float = 0.0

    def reach(self) -> None:
        """Do everything of the stream up to here."""
        while not self.reached and self.stream.pending:
            self.stream.step()

    def arrive(self) -> None:
        """Be here now."""
        self.reached = True
        self.at_ms = self.stream.driver.now_ms


class Event:
    """A place in a stream that can be waited for."""

    def __init__(self, driver: FakeDriver, flags: int) -> None:
        driver.check("event")
        self.driver = driver
        self.flags = flags
        self.mark: Mark | None = None

    def record(self, stream: Stream) -> Event:
        """Stand for everything that the stream was given so far."""
        mark = Mark(stream)
        self.mark = mark
        stream.enqueue(mark.arrive)
        return self

    def synchronize(self) -> None:
        """Wait."""
        self.driver.check("synchronize")
        if self.mark is not None:
            self.mark.reach()

    def query(self) -> bool:
        """True once it was reached."""
        self.driver.check("query")
        return self.mark is None or self.mark.reached

    def time_till(self, later: Event) -> float:
        """Milliseconds to a later event; both keep the time, and were reached."""
        self.driver.check("time_till")
        ends = [event.mark for event in (self, later) if not event.flags & DISABLE_TIMING]
        reached = [mark.at_ms for mark in ends if mark is not None and mark.reached]
        if len(reached) < 2:
            raise LogicError("cuEventElapsedTime failed: invalid resource handle or not ready")
        return reached[1] - reached[0]


@dataclass
class Device:
    """The one device."""

    driver: FakeDriver

    def name(self) -> str:
        """A name that no GPU has."""
        return "Fake GPU"

    def compute_capability(self) -> tuple[int, int]:
        """Of no GPU in particular."""
        return (9, 0)

    def get_attribute(self, attribute: str) -> int:
        """The one that is asked for."""
        assert attribute == "multiprocessors"
        return 132

    def retain_primary_context(self) -> Context:
        """One and the same context; asking twice is the mistake that pycuda punishes."""
        self.driver.retained += 1
        if self.driver.retained > 1:
            raise LogicError("the double: two context objects for one device")
        return Context(self.driver)


@dataclass
class Module:
    """Code on the device."""

    driver: FakeDriver

    def get_function(self, name: str) -> Callable[..., None]:
        """Return a kernel, which writes where nothing is."""
        del name

        def launch(*, block: tuple[int, int, int], grid: tuple[int, int]) -> None:
            del block, grid
            self.driver.check("launch")
            # A launch returns at once: those who come later hear of it.
            self.driver.sticky = "cuCtxSynchronize failed: an illegal memory access was encountered"

        return launch


@dataclass
class FakeDriver:
    """The module `pycuda.driver`, of a host with one device unless told otherwise."""

    devices: int = 1
    total: int = 1 << 30
    broken: str = ""
    """What `init` fails with."""
    registered: list[RegisteredHostMemory] = field(default_factory=list)
    """Other people's memory that is locked now."""
    streams: list[Stream] = field(default_factory=list)
    allocations: list[Allocation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """How often what was called."""
    retained: int = 0
    sticky: str = ""
    """The error that every call fails with from now on; "" for none."""
    now_ms: float = 0.0
    """The device's clock."""

    Error = Error
    LogicError = LogicError
    LaunchError = LaunchError
    MemoryError = MemoryError
    RuntimeError = RuntimeError
    device_attribute = SimpleNamespace(MULTIPROCESSOR_COUNT="multiprocessors")
    host_alloc_flags = SimpleNamespace(PORTABLE=1, DEVICEMAP=2, WRITECOMBINED=4)
    mem_host_register_flags = SimpleNamespace(PORTABLE=1, DEVICEMAP=2)
    event_flags = SimpleNamespace(DEFAULT=0, BLOCKING_SYNC=1, DISABLE_TIMING=DISABLE_TIMING)

    def __post_init__(self) -> None:
        self._local = threading.local()
        self._next = FIRST_ADDRESS
        self._pinned: list[tuple[int, int]] = []

    @property
    def stack(self) -> list[Context]:
        """Contexts that are current on this thread."""
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        stack: list[Context] = self._local.stack
        return stack

    @property
    def Device(self) -> Any:  # noqa: N802 pycuda calls it that
        """The class of devices."""
        driver = self

        class Found(Device):
            def __init__(self, index: int) -> None:
                if index >= driver.devices:
                    raise LogicError("cuDeviceGet failed: invalid device ordinal")
                super().__init__(driver)

            @staticmethod
            def count() -> int:
                return driver.devices

        return Found

    def init(self) -> None:
        """Start the driver."""
        if self.broken:
            raise RuntimeError(self.broken)

    def check(self, call: str) -> None:
        """Count a call, which needs a context and a device that works."""
        self.counts[call] += 1
        if self.sticky:
            raise LaunchError(self.sticky)
        if not self.stack:
            raise LogicError(f"{call}: invalid device context")

    @property
    def held(self) -> int:
        """Bytes of device memory that were not given back."""
        return sum(len(found.memory) for found in self.allocations if not found.freed)

    def mem_get_info(self) -> tuple[int, int]:
        """Free and total bytes."""
        self.check("mem_get_info")
        return self.total - self.held, self.total

    def mem_alloc(self, nbytes: int) -> Allocation:
        """Take device memory, full of poison."""
        self.check("mem_alloc")
        if nbytes > self.total - self.held:
            raise MemoryError("cuMemAlloc failed: out of memory")
        made = Allocation(self, self._next, bytearray([POISON]) * nbytes)
        self._next += -(-max(1, nbytes) // GRAIN) * GRAIN + GRAIN
        self.allocations.append(made)
        return made

    def pagelocked_empty(self, shape: Sequence[int] | int, dtype: Any, mem_flags: int = 0) -> Any:
        """Take pinned host memory, full of poison."""
        del mem_flags
        self.check("pagelocked_empty")
        made = np.empty(shape, dtype)
        made.view(np.uint8)[:] = POISON
        self._pin(made)
        return made

    def register_host_memory(self, array: Any, flags: int = 0) -> Any:
        """Pin memory that is there already: whole pages, and none twice."""
        del flags
        self.check("register_host_memory")
        start, nbytes = array.ctypes.data, array.nbytes
        if not nbytes or start % PAGE or nbytes % PAGE:
            raise LogicError("cuMemHostRegister failed: invalid argument")
        if any(start < one.end and one.start < start + nbytes for one in self.registered):
            raise LogicError("cuMemHostRegister failed: resource already mapped")
        made = RegisteredHostMemory(self, array)
        self.registered.append(made)
        return np.asarray(made)

    def Stream(self, flags: int = 0) -> Stream:  # noqa: N802 pycuda calls it that
        """Make a stream."""
        return Stream(self, flags)

    def Event(self, flags: int = 0) -> Event:  # noqa: N802 pycuda calls it that
        """Make an event."""
        return Event(self, flags)

    def module_from_buffer(self, code: bytes) -> Module:
        """Load a module, which may hold nothing but a kernel that breaks the context."""
        self.check("module_from_buffer")
        assert b"st.global" in code
        return Module(self)

    def memcpy_htod_async(self, dest: Any, src: Any, stream: Stream) -> None:
        """Copy to the device, some time."""
        data = self._host(src)
        address = int(dest)
        self.memory_at(address, len(data))
        if self._locked(src):
            # As pycuda, without keeping the array.
            start, before = src.ctypes.data, bytes(data)
            stream.enqueue(lambda: self._from_registered(address, start, before))
        else:
            stream.enqueue(lambda: self._to_device(address, data))

    def memcpy_dtoh_async(self, dest: Any, src: Any, stream: Stream) -> None:
        """Copy from the device, some time."""
        target = self._host(dest)
        address = int(src)
        self.memory_at(address, len(target))
        stream.enqueue(lambda: self._from_device(target, address))

    def memory_at(self, address: int, nbytes: int) -> memoryview:
        """Return device memory; all of it has to be in one allocation that lives."""
        for found in self.allocations:
            start = address - found.address
            if start >= 0 and start + nbytes <= len(found.memory):
                if found.freed:
                    raise LaunchError("an illegal memory access was encountered")
                return memoryview(found.memory)[start : start + nbytes]
        raise LaunchError("an illegal memory access was encountered")

    def stream_of(self, handle: int) -> Stream:
        """Return the stream with this handle."""
        return next(stream for stream in self.streams if stream.handle == handle)

    def is_pinned(self, array: Any) -> bool:
        """True if copies of this array really run beside the host."""
        start = array.ctypes.data
        return self._locked(array) or any(
            first <= start and start + array.nbytes <= first + size for first, size in self._pinned
        )

    def _locked(self, array: Any) -> bool:
        return any(one.covers(array.ctypes.data, array.nbytes) for one in self.registered)

    def _from_registered(self, address: int, start: int, before: bytes) -> None:
        """Copy what a caller still has to hold as it was."""
        if not any(one.covers(start, len(before)) for one in self.registered):
            raise LaunchError("an illegal memory access was encountered")
        if ctypes.string_at(start, len(before)) != before:
            raise LogicError("the double: registered memory changed before it was copied")
        self.memory_at(address, len(before))[:] = before

    def _pin(self, array: Any) -> None:
        self._pinned.append((array.ctypes.data, array.nbytes))

    def _host(self, array: Any) -> memoryview:
        """Return host memory, which has to be pinned: a copy of other memory waits for itself."""
        if not array.flags.c_contiguous:
            raise LogicError("the double: the array is not contiguous")
        if array.nbytes and not self.is_pinned(array):
            raise LogicError("the double: the array is not pinned")
        return memoryview(array.reshape(-1).view(np.uint8)).cast("B")

    def _to_device(self, address: int, data: memoryview) -> None:
        self.memory_at(address, len(data))[:] = data

    def _from_device(self, target: memoryview, address: int) -> None:
        target[:] = self.memory_at(address, len(target))


class FakeGraphs:
    """A double for the graphs of libcuda: records what a stream is given, and gives it again."""

    def __init__(self, driver: FakeDriver) -> None:
        self._driver = driver
        self.launches = 0
        self.empty = False
        """Whether captures come out empty, which CUDA raises nothing for."""
        self.fails = False
        """Whether a capture fails at its end."""

    def begin(self, stream: int) -> None:
        """Begin to capture a stream."""
        self._driver.stream_of(stream).captured = []

    def end(self, stream: int) -> Any:
        """End, and return a graph."""
        found = self._driver.stream_of(stream)
        recorded, found.captured = found.captured, None
        if self.fails or recorded is None:
            raise LogicError("cuStreamEndCapture failed: operation not permitted")
        return [] if self.empty else recorded

    def instantiate(self, graph: Any) -> Any:
        """Make a graph ready to be launched."""
        return tuple(graph)

    def launch(self, executable: Any, stream: int) -> None:
        """Give the stream what was recorded."""
        self.launches += 1
        for operation in executable:
            self._driver.stream_of(stream).enqueue(operation)

    def destroy(self, executable: Any, graph: Any) -> None:
        """Do nothing."""
