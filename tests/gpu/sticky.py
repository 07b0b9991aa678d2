"""A process that breaks its CUDA context on purpose: python -m tests.gpu.sticky SUBJECT.

Writes what its engine said before and after as JSON, and ends without cleaning anything up: on a
broken context each destructor fails, too.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import Any

import numpy as np
from inferd_engines.engine import EngineError

from benchmarks.gpu.subject import Subject
from tests.gpu.subjects import SUBJECTS

# Writes to an address that nobody has; the driver translates it for any GPU from 7.5 on.
KERNEL = b"""
.version 7.0
.target sm_75
.address_size 64
.visible .entry poison()
{
    .reg .b64 %address;
    .reg .b32 %value;
    mov.u64 %address, 16;
    mov.u32 %value, 1;
    st.global.u32 [%address], %value;
    ret;
}
\0"""


def break_context(cuda: Any, context: Any) -> None:
    """Leave an error that every later call fails with."""
    poison = cuda.module_from_buffer(KERNEL).get_function("poison")
    poison(block=(1, 1, 1), grid=(1, 1))
    with suppress(cuda.Error):
        context.synchronize()


def tell(subject: Subject) -> dict[str, Any]:
    """Run, break the context, and run again; return what happened."""
    engine = subject.engine(graphs=True)
    inputs = subject.inputs(1, np.random.default_rng(0))
    ran = sorted(engine.run(inputs, {}, 1))
    break_context(subject.gpu.device.cuda, subject.gpu.device.context)
    try:
        engine.run(inputs, {}, 1)
    except EngineError as error:
        return {"ran": ran, "fatal": error.fatal, "text": str(error)}
    return {"ran": ran, "fatal": False, "text": "it ran again"}


if __name__ == "__main__":
    with SUBJECTS[sys.argv[1]]() as found:
        sys.stdout.write(json.dumps(tell(found)))
        sys.stdout.flush()
        os._exit(0)
