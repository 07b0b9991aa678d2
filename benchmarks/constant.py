"""A server that is a transport and nothing else: every ModelInfer gets one and the same answer.

    python -m benchmarks.constant ANSWER_AS_HEX

Prints the port that it listens on, and stops at SIGTERM.
"""

from __future__ import annotations

import signal
import sys

from inferd_server import environment


def serve(answer: bytes) -> None:
    """Listen on a free port of the loopback until SIGTERM comes."""
    from inferd_server.settings.model import ListenSettings
    from inferd_server.transport.call import Call, Routes
    from inferd_server.transport.completion_queue import CompletionQueueTransport

    def infer(call: Call) -> None:
        call.reply((answer,))

    limits = ListenSettings()
    transport = CompletionQueueTransport(limits.max_message_bytes, limits.max_stream_messages)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    routes = Routes({"/inference.GRPCInferenceService/ModelInfer": infer})
    print(transport.start("127.0.0.1:0", routes), flush=True)
    signal.sigwait({signal.SIGTERM})
    transport.stop(0.0)


if __name__ == "__main__":
    environment.prepare()
    serve(bytes.fromhex(sys.argv[1]))
