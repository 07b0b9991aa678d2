"""How many processes serve, and when one starts again."""

from __future__ import annotations

import pytest
from inferd_server import command
from inferd_server.settings.model import EngineSettings, Settings
from inferd_server.supervisor.faults import cause
from inferd_server.supervisor.policy import (
    FAILURES_ON_GPU,
    LIMIT,
    LONGEST_S,
    arrange,
    restart_delay,
    wants_gpu,
    without_gpu,
)

GPU = ("CUDAExecutionProvider",)


@pytest.mark.parametrize(
    ("asked", "fronts", "cores", "providers", "expected"),
    [
        ("auto", 0, 1, (), 0),
        ("auto", 0, 2, (), 0),
        ("auto", 0, 2, ("CPUExecutionProvider",), 0),
        ("auto", 0, 3, (), 1),
        ("auto", 0, 16, (), 4),
        ("auto", 7, 16, (), 7),
        ("auto", 0, 2, GPU, 1),
        ("auto", 0, 16, GPU, 12),
        ("auto", 0, 8, GPU, 6),
        ("split", 0, 1, (), 1),
        ("split", 3, 1, (), 3),
        ("inline", 3, 64, GPU, 0),
        ("threads", 0, 64, (), 0),
    ],
)
def test_processes_follow_from_cores_and_device(
    asked: str, fronts: int, cores: int, providers: tuple[str, ...], expected: int
) -> None:
    arrangement = arrange(asked, fronts, cores, providers)
    assert arrangement.fronts == expected
    assert arrangement.reason
    assert arrangement.described


@pytest.mark.parametrize(("there", "fronts"), [(False, 0), (True, 1)])
def test_a_plan_store_makes_processes_only_where_there_is_a_gpu(
    monkeypatch: pytest.MonkeyPatch, there: bool, fronts: int
) -> None:
    monkeypatch.setattr(command, "gpu", lambda: there)
    settings = Settings(engine=EngineSettings(plan_store="/plans", cores=2))
    assert command.arranged(settings).fronts == fronts


def test_restarts_come_ever_later_and_end() -> None:
    delays = [restart_delay(failures) for failures in range(1, LIMIT + 2)]
    assert delays[0] == 0.0
    assert delays[-1] is None
    between = [delay for delay in delays if delay is not None]
    assert between == sorted(between)
    assert between[-1] <= LONGEST_S


@pytest.mark.parametrize(
    ("allowed", "gpu", "failures", "leaves"),
    [
        (True, True, FAILURES_ON_GPU - 1, False),
        (True, True, FAILURES_ON_GPU, True),
        (False, True, LIMIT, False),
        (True, False, LIMIT, False),
    ],
)
def test_the_gpu_is_left_alone_where_workers_on_it_do_not_live(
    allowed: bool, gpu: bool, failures: int, leaves: bool
) -> None:
    assert bool(without_gpu(allowed, gpu, failures)) is leaves


@pytest.mark.parametrize(
    ("engine", "gpu"),
    [
        (EngineSettings(), False),
        (EngineSettings(engine_providers=("CPUExecutionProvider",)), False),
        (EngineSettings(engine_providers=GPU), True),
        (EngineSettings(plan_store="/plans"), True),
    ],
)
def test_a_gpu_is_asked_for_by_a_provider_or_a_store_of_plans(
    engine: EngineSettings, gpu: bool
) -> None:
    assert wants_gpu(engine) is gpu


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (70, "its engine failed for good"),
        (1, "it ended with exit code 1"),
        (-9, "killed by SIGKILL, as the kernel does where memory runs out"),
        (-15, "killed by SIGTERM"),
        (-300, "killed by signal 300"),
    ],
)
def test_the_end_of_a_process_is_told_in_words(code: int, told: str) -> None:
    assert cause(code) == told
