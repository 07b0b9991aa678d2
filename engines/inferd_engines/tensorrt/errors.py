"""What can go wrong with TensorRT.

EngineError
└── TensorRTError
    ├── LibraryMissing      no flavour of TensorRT can be imported
    ├── DeviceMissing       no driver, no device, or no pycuda
    ├── BuildFailed         a model became no plan
    │   └── BuildCancelled  somebody asked for that
    └── PlanRefused         a plan cannot be used here, or is not right
"""

from __future__ import annotations

from inferd_engines.engine import EngineError


class TensorRTError(EngineError):
    """TensorRT refused; the message ends with what its logger said last."""


class LibraryMissing(TensorRTError):
    """No flavour of TensorRT can be imported."""


class DeviceMissing(TensorRTError):
    """There is no device to run on: no driver, no GPU, or no pycuda."""


class BuildFailed(TensorRTError):
    """A model did not become a plan."""


class BuildCancelled(BuildFailed):
    """A build ended early because somebody asked for that."""


class PlanRefused(TensorRTError):
    """A plan cannot be used on this host, is damaged, or gives other answers than the model."""
