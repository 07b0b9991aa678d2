"""A process of `gpus_server`: engines on the processor, and a GPU that works unless a file says no.

Who has no GPU of its own, or another than it was told, ends.
"""

from __future__ import annotations

import os
import sys

from inferd_engines.devices import VISIBLE, DeviceProblem
from inferd_engines.standard import Engines, open_onnx_cpu
from inferd_server.processes.child import main
from inferd_server.processes.messages import ProcessPlace


def engines(place: ProcessPlace) -> Engines:
    assert os.environ[VISIBLE] == place.device
    if (place.settings.repository.model_repository.parent / place.device).exists():
        raise DeviceProblem("it fell off the bus")
    return Engines(open_onnx_cpu, None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], engines))
