"""The links of a front to all workers: a request goes to one that serves its model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Protocol, cast

from inferd_server.batching.job import Job
from inferd_server.processes.link.front_end import FrontLink
from inferd_server.processes.link.inputs import InputMemory
from inferd_server.processes.link.memory import LinkMemory
from inferd_server.processes.link.pending import NEW, History, LinkTarget, Lost
from inferd_server.processes.messages import ProcessPlace


class Target(LinkTarget, Protocol):
    """A model version in one worker."""

    @property
    def worker(self) -> int:
        """Index of the worker."""

    @property
    def line(self) -> Line:
        """The version, wherever it is."""


class Line(LinkTarget, Protocol):
    """A model version in all workers that serve it."""

    @property
    def targets(self) -> Sequence[Target]:
        """Of each of them; another object after every change."""


class FrontLinks:
    """A front's links, one to each worker, over one memory for inputs. Any thread may call."""

    def __init__(self, links: Sequence[FrontLink]) -> None:
        """Take links that share their inputs; one at least, by the index of the worker."""
        self._links = links
        self.inputs: InputMemory = links[0].inputs
        self._turns = count()

    @property
    def size(self) -> int:
        """Requests that one worker may have of this front."""
        return self._links[0].size

    @property
    def in_flight(self) -> int:
        """Requests that the workers have."""
        return sum(link.in_flight for link in self._links)

    @property
    def busy(self) -> float:
        """How busy the engines of the busiest worker are, in 0..1."""
        return max(link.busy for link in self._links)

    def submit(self, job: Job, line: Line, history: History = NEW) -> bool:
        """Send a request to a worker that has the fewest; False if none serves its model."""
        tried: Sequence[Target] | None = None
        while (targets := line.targets) is not tried:
            # Once more if it was replaced, or lost, meanwhile.
            tried = targets
            for target in self._least_first(targets) if len(targets) > 1 else targets:
                if self._links[target.worker].submit(job, target, history):
                    return True
        return False

    def waiting_rows(self, line: Line) -> int:
        """Return how many rows of all fronts wait for a version, where they are fewest."""
        waiting = [self._links[one.worker].waiting_rows(one.number) for one in line.targets]
        return min(waiting, default=0)

    def cancel(self, job: Job) -> None:
        """Tell whichever worker has a request that its caller went away."""
        for link in self._links:
            link.cancel(job)

    def take_back(self, worker: int) -> list[Lost]:
        """Return what a dead worker left unanswered, in order of arrival, and begin anew."""
        return [
            replace(lost, target=line_of(lost.target)) for lost in self._links[worker].take_back()
        ]

    def turn(self) -> float | None:
        """Answer what the workers completed; before the thread that polls for events sleeps.

        Returns:
            Seconds after which to look again should nobody wake it; None if nothing is awaited.
        """
        waits = [link.turn() for link in self._links]
        return min((wait for wait in waits if wait is not None), default=None)

    def answer(self) -> None:
        """Answer what the workers completed."""
        for link in self._links:
            link.answer()

    def _least_first(self, targets: Sequence[Target]) -> Sequence[Target]:
        # Of those that have as few, one after the other: a front with one caller uses all.
        first = next(self._turns) % len(targets)
        turned = (*targets[first:], *targets[:first])
        return sorted(turned, key=lambda target: self._links[target.worker].in_flight)


def links_of(place: ProcessPlace) -> FrontLinks:
    """Return the links of a front, one to each worker."""
    links: list[FrontLink] = []
    for memory, inputs, wake in zip(place.links, place.inputs, place.wake_workers, strict=True):
        shared = links[0].inputs if links else None
        links.append(FrontLink(LinkMemory(memory, place.layout, inputs), wake, shared))
    return FrontLinks(links)


def line_of(target: LinkTarget) -> Line:
    """Return the version that a request was sent to in one worker, wherever it is."""
    return cast("Target", target).line
