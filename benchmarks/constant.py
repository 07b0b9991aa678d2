"""A server that is a transport and nothing else: every ModelInfer gets one and the same answer.

    python -m benchmarks.constant ANSWER_AS_HEX [NAME=NUMBER ...]

The names are gRPC core's channel arguments. Prints the port that it listens on, and stops at
SIGTERM.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from dataclasses import replace

from inferd_server import environment


def serve(answer: bytes, arguments: Mapping[str, int]) -> None:
    """Listen on a free port of the loopback until SIGTERM comes."""
    from inferd_server.settings.model import ListenSettings
    from inferd_server.transport.call import Call, Routes
    from inferd_server.transport.completion_queue import CompletionQueueTransport
    from inferd_server.transport.options import transport_options

    def infer(call: Call) -> None:
        call.reply((answer,))

    options = replace(transport_options(ListenSettings()), more=tuple(arguments.items()))
    transport = CompletionQueueTransport(options)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    routes = Routes({"/inference.GRPCInferenceService/ModelInfer": infer})
    print(transport.start("127.0.0.1:0", routes), flush=True)
    signal.sigwait({signal.SIGTERM})
    transport.stop(0.0)


if __name__ == "__main__":
    environment.prepare()
    pairs = (argument.split("=") for argument in sys.argv[2:])
    serve(bytes.fromhex(sys.argv[1]), {name: int(number) for name, number in pairs})
