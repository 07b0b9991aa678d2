"""How many pods an autoscaler would ask for, of what a real Prometheus tells of real servers."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from inferd_client import Client, InferdError

from tests import models
from tests.deploy.helm import Helm, Values
from tests.ports import free_port
from tests.prometheus import ask, prometheus, until
from tests.server.lifecycle.process import ready_process
from tests.server.serving import PATIENCE

KEDA: Values = {"autoscaling": {"by": "keda", "prometheusUrl": "http://p.test:9090"}}
TOLERANCE = 0.1
"""Kubernetes' own: a number of pods that is so little wrong stays."""
PODS = ("inferd-7c9f5-aaaaa", "inferd-7c9f5-bbbbb")
IDLE = 9
"""Models beside the busy one, which nobody asks."""
CALLERS = 2
ZEROS = {name: np.zeros((1, 16), np.int32) for name in ("INPUT0", "INPUT1")}
REST, WORK = (0.0, 0.2), (0.95, 1.0)
"""How busy a pod is: from, to. Now and then it tries models that nobody asks."""


def pods_for_sum(total: float, target: float, pods: int) -> int:
    """Return what the HPA of KEDA makes of an external metric's sum, AverageValue.

    As `GetExternalPerPodMetricReplicas` of Kubernetes' replica_calculator.go.
    """
    if abs(total / (target * pods) - 1) <= TOLERANCE:
        return pods
    return whole(total / target)


def pods_for_each(values: Mapping[str, float], target: float, pods: int) -> int:
    """Return what an HPA makes of a metric of pods, some of which may have none.

    As `calcPlainMetricReplicas` of Kubernetes' replica_calculator.go: who is missing counts
    against a change, and never turns it round.
    """
    ratio = sum(values.values()) / len(values) / target
    missing = pods - len(values)
    if not missing:
        return pods if abs(ratio - 1) <= TOLERANCE else whole(ratio * pods)
    total = sum(values.values()) + missing * (target if ratio < 1 else 0.0)
    careful = total / pods / target
    if abs(careful - 1) <= TOLERANCE or (ratio < 1) != (careful < 1):
        return pods
    return whole(careful * pods)


def whole(pods: float) -> int:
    """Return pods rounded up; values have three decimals."""
    return math.ceil(round(pods, 3))


@pytest.mark.parametrize(
    ("values", "pods", "wanted"),
    [
        ([0.7, 0.7], 2, 2),
        ([0.75, 0.75], 2, 2),
        ([1.0, 1.0], 2, 3),
        ([0.2, 0.2], 2, 1),
        # One that is missing keeps the others from scaling up as from going.
        ([1.0], 2, 2),
        ([0.3], 2, 2),
        ([1.0, 1.0], 3, 3),
        ([1.0, 1.0, 1.0, 1.0], 5, 6),
    ],
)
def test_the_arithmetic_of_kubernetes(values: Sequence[float], pods: int, wanted: int) -> None:
    each = {str(number): value for number, value in enumerate(values)}
    assert pods_for_each(each, 0.7, pods) == wanted
    if len(values) == pods:
        assert pods_for_sum(sum(values), 0.7, pods) == wanted


@dataclass
class Pods:
    """Servers at addresses of their own, and the Prometheus that scrapes them as pods."""

    repository: Path
    url: str
    ports: Mapping[str, tuple[int, int]]
    """By pod, those of calls and of metrics."""
    running: dict[str, ExitStack] = field(default_factory=dict)

    def start(self, pod: str) -> None:
        """Return once the server of a pod is ready."""
        calls, metrics = self.ports[pod]
        stack = ExitStack()
        flags = (
            "--grpc-port",
            str(calls),
            "--metrics-port",
            str(metrics),
            "--processes",
            "threads",
        )
        stack.enter_context(ready_process(self.repository, *flags))
        self.running[pod] = stack

    def kill(self, pod: str) -> None:
        """End the server of a pod, if it runs."""
        self.running.pop(pod, ExitStack()).close()

    def call(self, pod: str, over: Event) -> None:
        """Ask the busy model of a pod, again and again, until it is over or the pod is gone."""
        with Client(f"127.0.0.1:{self.ports[pod][0]}", timeout=PATIENCE, retries=False) as client:
            while not over.is_set():
                try:
                    client.infer("busy", **ZEROS)
                except InferdError:
                    return

    @contextmanager
    def asked(self, *pods: str) -> Iterator[None]:
        """Have the busy model of some pods asked meanwhile, by more callers than can run."""
        over = Event()
        with ThreadPoolExecutor() as callers:
            for pod in pods * CALLERS:
                callers.submit(self.call, pod, over)
            try:
                yield
            finally:
                over.set()

    def number(self, query: str) -> float:
        """Return what a query for one number gives now; NaN for nothing."""
        found = ask(self.url, query)
        return float(found[0]["value"][1]) if found else math.nan

    def each(self) -> Mapping[str, float]:
        """Return how busy each pod is, as an adapter hands it to the HPA."""
        found = ask(self.url, "inferd_engine_busy_ratio")
        return {one["metric"]["pod"]: float(one["value"][1]) for one in found}

    def wait(self, *wanted: tuple[float, float]) -> None:
        """Return once there are so many pods, as busy as from one number to another."""

        def so() -> bool:
            values = sorted(self.each().values())
            within = zip(values, wanted, strict=False)
            return len(values) == len(wanted) and all(a <= v <= b for v, (a, b) in within)

        until(so, self.each)


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    if shutil.which("prometheus") is None:
        pytest.skip("not here: prometheus (the Debian package of that name)")
    folder = tmp_path_factory.mktemp("scaling")
    protos = {f"idle-{number}": models.scale(2.0) for number in range(IDLE)}
    protos["busy"] = models.slow_add(200_000)
    repository = models.repository(folder / "models", protos, {"busy": "max_batch_size: 0\n"})
    ports = {pod: (free_port(), free_port()) for pod in PODS}
    targets = [
        {
            "targets": [f"127.0.0.1:{metrics}"],
            "labels": {"namespace": "default", "pod": pod},
        }
        for pod, (_, metrics) in ports.items()
    ]
    # Scraped twice, as by a monitor and by annotations.
    jobs = [{"job_name": name, "static_configs": targets} for name in ("monitor", "annotations")]
    with prometheus(folder, {"scrape_configs": jobs}) as url, ExitStack() as stack:
        made = Pods(repository, url, ports)
        for pod in PODS:
            made.start(pod)
            stack.callback(made.kill, pod)
        yield made


@dataclass(frozen=True)
class Asked:
    """What the chart has KEDA ask, and its targets."""

    busy: str
    waiting: str
    ratio: float
    requests: float


@pytest.fixture
def asked(helm: Helm) -> Asked:
    triggers = helm.object("ScaledObject", KEDA)["spec"]["triggers"]
    busy, waiting = (trigger["metadata"] for trigger in triggers)
    targets = float(busy["threshold"]), float(waiting["threshold"])
    return Asked(busy["query"], waiting["query"], *targets)


@pytest.mark.slow
def test_without_traffic_one_pod_is_enough(pods: Pods, asked: Asked) -> None:
    pods.wait(REST, REST)
    assert pods.number(asked.busy) <= 2 * REST[1]
    assert pods.number(asked.waiting) == 0
    assert pods_for_sum(pods.number(asked.busy), asked.ratio, 2) <= 1
    assert pods_for_sum(0.0, asked.requests, 2) == 0
    assert pods_for_each(pods.each(), asked.ratio, 2) <= 1


@pytest.mark.slow
def test_one_busy_model_among_ten_counts_as_a_busy_pod(pods: Pods, asked: Asked) -> None:
    with pods.asked(PODS[0]):
        pods.wait(REST, WORK)
        assert pods.number(asked.busy) == pytest.approx(1, abs=0.05)
        alone = {PODS[0]: pods.each()[PODS[0]]}
    assert pods_for_each(alone, asked.ratio, 1) == 2
    assert pods_for_sum(sum(alone.values()), asked.ratio, 1) == 2


@pytest.mark.slow
def test_no_pod_goes_nor_comes_because_one_restarts(pods: Pods, asked: Asked) -> None:
    with pods.asked(*PODS):
        pods.wait(WORK, WORK)
        assert pods_for_each(pods.each(), asked.ratio, 2) == 3
        assert pods_for_sum(pods.number(asked.busy), asked.ratio, 2) == 3
        pods.kill(PODS[1])
        pods.wait(WORK)
        assert pods_for_each(pods.each(), asked.ratio, 2) == 2
        assert pods_for_sum(pods.number(asked.busy), asked.ratio, 2) == 2
        pods.start(PODS[1])
        pods.wait(REST, WORK)
        assert pods_for_each(pods.each(), asked.ratio, 2) == 2
        assert pods_for_sum(pods.number(asked.busy), asked.ratio, 2) == 2


@pytest.mark.slow
def test_requests_that_wait_are_seen_before_the_window_is_full(pods: Pods, asked: Asked) -> None:
    with pods.asked(PODS[0]):
        until(lambda: pods.number(asked.waiting) == CALLERS - 1, pods.each)
    until(lambda: pods.number(asked.waiting) == 0, pods.each)
