"""Drives one process's share of a run with the fast client."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Sequence

from inferd_client.bench.choice import split_address
from inferd_client.bench.fast.answers import Answers
from inferd_client.bench.fast.header_block import request_block
from inferd_client.bench.fast.link import Link
from inferd_client.bench.fast.load import Load, Place
from inferd_client.bench.fast.outbox import Baked
from inferd_client.bench.fast.stream import Stream, StreamPlace
from inferd_client.bench.fast.unary import UnaryPlace
from inferd_client.bench.fast.wire import Address, Wires
from inferd_client.bench.plan import Plan
from inferd_client.bench.samples import Samples
from inferd_client.bench.senders import SERVICE

# Seconds between two looks at links that wait to connect again, and at the progress.
_LOOK = 0.05


def drive(plan: Plan, progress: Callable[[float], None] = lambda _: None) -> Samples:
    """Warm up, then run the plan and return what was measured.

    Args:
        plan: this process's share.
        progress: told the seconds since the start, now and then.

    Raises:
        OSError: the host has no address.
    """
    addresses = resolve(plan.address)
    # epoll counts milliseconds, select microseconds: an open loop is kept to its moments.
    paced = plan.rate is not None
    wires = Wires(selectors.SelectSelector() if paced else selectors.DefaultSelector())
    generator = Generator(plan, wires, addresses, progress)
    try:
        if plan.warmup > 0:
            generator.measure(plan.as_warmup())
        return generator.measure(plan)
    finally:
        wires.close()


class Generator:
    """Connections, places and the loop that keeps them going."""

    def __init__(
        self,
        plan: Plan,
        wires: Wires,
        addresses: Sequence[Address],
        progress: Callable[[float], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing connects before it is needed.

        Args:
            plan: tells what is sent over how many connections.
            wires: opens and watches the sockets; remains the caller's.
            addresses: of the server.
            progress: told the seconds since now, now and then.
            clock: monotonic seconds.
        """
        self._wires = wires
        self._clock = clock
        self._began = clock()
        self._progress = progress
        self._load = Load(clock)
        self._answers = Answers(stream=plan.stream) if plan.check else None
        self._links = [
            Link(addresses, wires, clock) for _ in range(min(plan.concurrency, plan.connections))
        ]
        self._places = self._streams(plan) if plan.stream else self._unary(plan)

    def measure(self, plan: Plan) -> Samples:
        """Run the plan once; see `inferd_client.bench.load.measure`."""
        if self._answers is not None:
            self._answers.different = 0
        samples = Samples(started=self._clock())
        cpu = time.process_time()
        schedule = self._load.begin(plan, self._places, samples)
        self._keep_going()
        samples.cpu = time.process_time() - cpu
        samples.ended = self._clock()
        samples.unsent = schedule.unsent()
        if self._answers is not None:
            samples.different = self._answers.different
        return samples

    def _keep_going(self) -> None:
        next_look = 0.0
        while self._load.busy:
            self._wires.turn(min(self._load.look(), _LOOK))
            now = self._clock()
            if now >= next_look:
                next_look = now + _LOOK
                self._progress(now - self._began)
                for link in self._links:
                    link.dispatch()

    def _unary(self, plan: Plan) -> Sequence[Place]:
        block = request_block(plan.address, f"{SERVICE}/ModelInfer", plan.timeout)
        baked = Baked(block, plan.request)
        return [
            UnaryPlace(self._links[index % len(self._links)], self._load, baked, self._answers)
            for index in range(plan.concurrency)
        ]

    def _streams(self, plan: Plan) -> Sequence[Place]:
        block = request_block(plan.address, f"{SERVICE}/ModelStreamInfer", float("inf"))
        places: list[Place] = []
        for index in range(-(-plan.concurrency // plan.per_stream)):
            link = self._links[index % len(self._links)]
            alone = plan.per_stream == 1
            stream = Stream(link, self._load, block, self._answers, alone=alone)
            count = min(plan.per_stream, plan.concurrency - len(places))
            idents = [""] if alone else [str(each + 1) for each in range(count)]
            places += (StreamPlace(stream, plan.request, ident) for ident in idents)
        return places


def resolve(address: str) -> list[Address]:
    """Return where "host:port" may be reached.

    Raises:
        OSError: nowhere.
    """
    found = socket.getaddrinfo(*split_address(address), type=socket.SOCK_STREAM)
    return [(family, where) for family, _, _, _, where in found]
