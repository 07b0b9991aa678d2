"""What recording costs: a server that records a share of the requests beside one that records none.

    python -m benchmarks.recording [--share 0.01] [--format auto] [--rounds 9] [--seconds 2]
        [-- FLAGS OF SERVE]

Both servers run all the time; each round loads one after the other, each first in every other
round, as in `benchmarks.revisions`. Parts are written each second, so that every measurement has
its share of that.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from inferd_server.settings.model import shipped_models

from benchmarks.process import serving
from benchmarks.revisions import interleaved, table


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
        wanted = {"sample-share": options.share, "record-to": folder, "record-part-s": 1}
        flags = [f"--{name}={value}" for name, value in wanted.items()]
        flags.append(f"--record-format={options.format}")
        models = shipped_models()
        with (
            serving(models, [*options.flags, *flags]) as recording,
            serving(models, options.flags) as plain,
        ):
            found = interleaved([recording, plain], options.rounds, options.seconds)
        nbytes = sum(path.stat().st_size for path in Path(folder).rglob("*-*"))
    print(table(found, f"recording {options.share:g}", "not recording"))
    print(f"\nrecorded: {nbytes:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
