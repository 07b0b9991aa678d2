"""What can go wrong with TensorRT.

EngineError
└── TensorRTError
    ├── LibraryMissing      no flavour of TensorRT can be imported
    ├── DeviceMissing       no driver, no device, or no pycuda
    ├── BuildFailed         a model became no plan
    │   └── BuildCancelled  somebody asked for that
    ├── PlanRefused         a plan cannot be used here, or is not right
    └── PlanMissing         there is none yet
"""

from __future__ import annotations

from inferd_engines.engine import EngineError, PlanState


class TensorRTError(EngineError):
    """TensorRT refused; the message ends with what its logger said last."""

    plan_state = PlanState.FAILED


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
