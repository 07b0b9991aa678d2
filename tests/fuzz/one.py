"""One target under atheris: `python -m tests.fuzz.one TARGET [FLAGS OF LIBFUZZER] FOLDERS`."""

from __future__ import annotations

import logging
import sys

import atheris

# Before anything else imports them.
with atheris.instrument_imports(
    include=[
        "inferd_server.front",
        "inferd_server.link",
        "inferd_server.scheduler",
        "inferd.tensors",
    ]
):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    logging.disable()
    name, *flags = sys.argv[1:]
    # As which libFuzzer starts itself anew, through a shell, when it merges.
    program = f"{sys.executable} -m tests.fuzz.one {name}"
    atheris.Setup([program, *flags], TARGETS[name])
    atheris.Fuzz()
