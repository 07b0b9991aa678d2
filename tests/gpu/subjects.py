"""What the checks of hardware run on: a plan on this host's GPU, or doubles of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from inferd_engines.tensorrt.opener import Gpu, find_gpu
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.profiles import profiles_for
from inferd_server.settings.model import shipped_models

from benchmarks.gpu.host import add_tools
from benchmarks.gpu.subject import Subject, build
from tests.engines.tensorrt.bench import PLAN, Bench
from tests.fakes.engine import DOUBLING, double
from tests.fakes.tensorrt import FakeModel

DIGITS = shipped_models() / "digits/1/model.onnx"
OPTIONS = BuildOptions(buckets=(1, 4, 8))


@contextmanager
def doubles() -> Iterator[Subject]:
    """Give a plan that doubles its input on a fake GPU, whose context is current."""
    bench = Bench()
    profiles = profiles_for(DOUBLING, OPTIONS.buckets, {}, batched=True)
    bench.models[PLAN] = FakeModel(DOUBLING, double, profiles)
    gpu = Gpu(bench.library, bench.device)
    yield Subject("doubling", gpu, PLAN, DOUBLING, OPTIONS)
    bench.close()


@contextmanager
def hardware() -> Iterator[Subject]:
    """Give digits on the first GPU of this host, whose context is current.

    Raises:
        TensorRTError: there is none.
    """
    add_tools()
    gpu = find_gpu()
    with gpu.device.current():
        yield build(gpu, "digits", DIGITS, OPTIONS)


SUBJECTS: Mapping[str, Callable[[], AbstractContextManager[Subject]]] = {
    "doubles": doubles,
    "hardware": hardware,
}
"""By name, for a child process."""
