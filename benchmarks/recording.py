"""The cost of recording: a server that records some requests beside one that records none.

    python -m benchmarks.recording [--share 0.01] [--format auto] [--rounds 9] [--seconds 2]
        [-- FLAGS OF SERVE]

Both servers run all the time; each round loads one after the other, each first in every other
round, as in `benchmarks.revisions`. Parts are written each second, so that every measurement has
its share of that. A host that others use is too restless for two percent; so first the processor
time of the parts is told, the least of several goes each: what encoding an answer takes more, and
what a sample takes from there to its file. `--rounds 0` is that alone.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
from inferd_engines.standard import engines_on
from inferd_server import one_process
from inferd_server.inference.response import OutputTarget, Responses
from inferd_server.inference.sampling import Sampling
from inferd_server.inference.shared_memory import RegionTable
from inferd_server.inference.validation import Admitted
from inferd_server.monitoring.logs import LogControl
from inferd_server.monitoring.recorder import make_recorder
from inferd_server.monitoring.samples import Tap
from inferd_server.settings.model import shipped_models
from inferd_server.settings.sources import load_settings

from benchmarks.process import digits_request, serving
from benchmarks.revisions import interleaved, table

ENCODED, SAMPLED, GOES = 20_000, 200, 15
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
    """Measure what encoding an answer takes more, and what a sample takes; all in this process."""
    settings = load_settings({name: str(value) for name, value in wanted.items()}, {})
    server = one_process.build(
        settings, LogControl(settings.log, io.StringIO()), engines_on("", "auto")
    )
    server.load()
    handle = server.repository.resolve("digits", "")
    message = digits_request().SerializeToString()
    request: Any = SimpleNamespace(
        identity=b"", call=SimpleNamespace(request=message), started=0.0, sequence=0
    )
    name = handle.signature.outputs[0].name
    outputs = {name: np.zeros((1, 10), np.float32)}
    recorder = make_recorder(settings.monitoring, time.monotonic)
    assert recorder is not None
    tap = Tap([recorder], 2**30, time.monotonic)

    def encode(sampling: Sampling, times: int) -> None:
        inner = Responses("digits", handle.version, [OutputTarget(name)])
        responses = sampling.around(inner, handle, Admitted((), 1), None)
        for _ in range(times):
            responses.encode(request, outputs)
        if not tap.flush(PATIENCE_S):
            raise RuntimeError("the samples were not looked at in time")

    each, taken = encoded(encode, tap)
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


def encoded(encode: Callable[[Sampling, int], None], tap: Tap) -> tuple[float, float]:
    """Return what each answer takes more, and what each sample that is taken does, in us."""
    none = Sampling(None, 0.0, RegionTable(), time.monotonic, time.time, random.getrandbits)
    plain = microseconds(lambda: encode(none, ENCODED)) / ENCODED
    # So few that none is taken.
    seldom, always = replace(none, tap=tap, share=1e-12), replace(none, tap=tap, share=1.0)
    each = microseconds(lambda: encode(seldom, ENCODED)) / ENCODED
    taken = microseconds(lambda: encode(always, SAMPLED)) / SAMPLED
    return each - plain, taken - plain


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
