"""A process of `faulty_server`: as `inferd_server.child`, with engines that fail."""

from __future__ import annotations

import sys

from inferd_engines.standard import Engines
from inferd_server.child import engines_of, main
from inferd_server.control.messages import Place

from tests.fakes.faulty import open_faulty, open_on_dead_gpu, open_uneven


def engines(place: Place) -> Engines:
    """Engines that fail; where a GPU is asked for, every one that uses it.

    Those of replicas differ from each other.
    """
    if place.settings.engine.processes == "replicas":
        return Engines(open_uneven, None)
    if place.without_gpu:
        return engines_of(place)
    return Engines(open_on_dead_gpu if place.settings.engine.plan_store else open_faulty, None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], engines))
