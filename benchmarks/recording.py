"""The cost of recording: a server that records some requests beside one that records none.

    python -m benchmarks.recording [--share 0.01] [--format auto] [--rounds 9] [--seconds 2]
        [-- FLAGS OF SERVE]

Both servers run all the time; each round loads one after the other, each first in every other
round, as in `benchmarks.revisions`. Parts are written each second, so that every measurement has
its share of that. A host that others use is too restless for two percent; so first the processor
time of the parts is told, the least of several goes each: what an answer takes more, and what a
sample takes from there to its file. `--rounds 0` is that alone.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import time
from collections.abc import Callable, Mapping
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
from inferd.tensors import Array
from inferd_engines.standard import engines_on
from inferd_server import one_process
from inferd_server.inference.inputs import locate
from inferd_server.inference.request_plan import find_sources
from inferd_server.inference.response import OutputTarget
from inferd_server.inference.sampling import Sampler, Sampling
from inferd_server.inference.shared_memory import RegionTable
from inferd_server.inference.validation import admit
from inferd_server.inference.wire import parse
from inferd_server.monitoring.logs import LogControl
from inferd_server.monitoring.recorder import make_recorder
from inferd_server.monitoring.samples import Tap
from inferd_server.settings.model import shipped_models
from inferd_server.settings.sources import load_settings

from benchmarks.process import digits_request, serving
from benchmarks.revisions import interleaved, table

ANSWERED, SAMPLED, GOES = 20_000, 200, 15
PATIENCE_S = 60.0


def microseconds(work: Callable[[], object]) -> float:
    """Return the least processor time of several goes, of all threads."""
    found = []
    for _ in range(GOES):
        before = time.process_time()
        work()
        found.append((time.process_time() - before) * 1e6)
    return min(found)


def costs(share: float, wanted: dict[str, Any]) -> str:
    """Measure what an answer takes more, and what a sample takes; all in this process."""
    settings = load_settings({name: str(value) for name, value in wanted.items()}, {})
    server = one_process.build(
        settings, LogControl(settings.log, io.StringIO()), engines_on("", "auto")
    )
    server.load()
    message = digits_request().SerializeToString()
    handle, regions = server.repository.resolve("digits", ""), RegionTable()
    parsed, raw = parse(message)
    admitted = admit(parsed, raw, handle.signature, handle.bounds.max_batch_size)
    sources = find_sources(admitted, raw, locate(admitted, regions))
    request = SimpleNamespace(call=SimpleNamespace(request=message), started=0.0, sequence=0)
    name = handle.signature.outputs[0].name
    outputs = {name: np.zeros((1, 10), np.float32)}
    recorder = make_recorder(settings.monitoring, time.monotonic)
    assert recorder is not None
    tap = Tap([recorder], 2**30, time.monotonic)

    def answer(tap: Tap | None, share: float, times: int) -> None:
        sampling = Sampling(tap, share, regions, time.monotonic, time.time, random.getrandbits)
        sampler = sampling.of(handle, admitted, sources, [OutputTarget(name)])
        answered(sampler, request, outputs, times)
        if tap is not None and not tap.flush(PATIENCE_S):
            raise RuntimeError("the samples were not looked at in time")

    plain = microseconds(lambda: answer(None, 0.0, ANSWERED)) / ANSWERED
    # So few that none is taken.
    each = microseconds(lambda: answer(tap, 1e-12, ANSWERED)) / ANSWERED - plain
    taken = microseconds(lambda: answer(tap, 1.0, SAMPLED)) / SAMPLED - plain
    before = time.process_time()
    recorder.close(PATIENCE_S)
    server.stop(0.0)
    last = (time.process_time() - before) * 1e6
    counted = recorder.counters()
    written = sum(count for (key, *_), count in counted.items() if "recorded" in key)
    return (
        f"processor time: {each:.2f} us more for each answer, {taken:.0f} us for each that is "
        f"taken; with a share of {share:g} {each + share * taken:.2f} us a request\n"
        f"{written:,.0f} of {SAMPLED * GOES:,} taken were written, the last part in {last:.0f} us\n"
    )


def answered(
    sampler: Sampler | None, request: Any, outputs: Mapping[str, Array], times: int
) -> None:
    """Do what is done of sampling for each request that is answered."""
    for _ in range(times):
        if sampler is not None:
            if sampler.left > 1 and not request.sequence:
                sampler.left -= 1
            else:
                sampler.look(request, outputs)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--format", default="auto")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("flags", nargs="*", help="of `inferd serve`, for both, after --")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        # So many bytes that the parts of the first figures are written while they are measured.
        wanted = {"record_to": f"{folder}/here", "record_format": options.format}
        print(costs(options.share, {**wanted, "record_part_bytes": 256 * 1024}))
        if not options.rounds:
            return 0
        wanted |= {"sample_share": options.share, "record_part_s": 1, "record_to": folder}
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in wanted.items()]
        models = shipped_models()
        with (
            serving(models, [*options.flags, *flags]) as recording,
            serving(models, options.flags) as plain,
        ):
            found = interleaved([recording, plain], options.rounds, options.seconds)
    print(table(found, f"recording {options.share:g}", "not recording"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
