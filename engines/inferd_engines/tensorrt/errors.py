"""What can go wrong with TensorRT.

EngineError
└── TensorRTError
    ├── LibraryMissing      no flavour of TensorRT can be imported
    ├── DeviceMissing       no driver, no device, or no pycuda
    ├── DriverError         a call of the driver failed (libcuda.py)
    ├── OutOfMemory         there was no room on the device
    ├── BuildFailed         a model became no plan
    │   └── BuildCancelled  somebody asked for that
    ├── PlanRefused         a plan cannot be used here, or is not right
    └── PlanMissing         there is none yet
"""

from __future__ import annotations

from inferd_engines.engine import EngineError, PlanState

MEMORY = ("out of memory", "outofmemory", "out_of_memory", "cudaerrormemoryallocation")


class TensorRTError(EngineError):
    """TensorRT refused; the message ends with what its logger said last."""

    plan_state = PlanState.FAILED


class OutOfMemory(TensorRTError):
    """There was no room on the device: a smaller batch may do."""


class LibraryMissing(TensorRTError):
    """No flavour of TensorRT can be imported."""

    plan_state = PlanState.FALLBACK


class DeviceMissing(TensorRTError):
    """There is no device to run on: no driver, no GPU, or no pycuda."""

    plan_state = PlanState.FALLBACK


class BuildFailed(TensorRTError):
    """A model did not become a plan."""


class BuildCancelled(BuildFailed):
    """A build ended early because somebody asked for that."""


class PlanRefused(TensorRTError):
    """A plan cannot be used on this host, is damaged, or gives other answers than the model."""


class PlanMissing(TensorRTError):
    """There is no plan, and one is being built."""

    plan_state = PlanState.BUILDING


def lacks_memory(text: str) -> bool:
    """True if an error tells that there was no room.

    Args:
        text: of an exception, or lines of TensorRT's logger.
    """
    return any(known in text.lower() for known in MEMORY)
