"""Which models are left out after workers died, and which batches become smaller."""

from __future__ import annotations

import signal

import pytest
from inferd_server.processes.worker_deaths import WorkerDeaths

CRASHED, KILLED = -signal.SIGSEGV, -signal.SIGKILL
M, N = ("m", 1), ("n", 2)


class Kernel:
    """Counts whom it ended for want of memory, if it counts at all."""

    def __init__(self, counts: bool = True) -> None:
        self.kills: int | None = 0 if counts else None

    def __call__(self) -> int | None:
        return self.kills

    def kill(self) -> None:
        if self.kills is not None:
            self.kills += 1


@pytest.mark.parametrize("counts", [True, False])
def test_a_model_that_was_loading_at_two_deaths_is_left_out(counts: bool) -> None:
    kernel = Kernel(counts)
    deaths = WorkerDeaths(kernel)
    kernel.kill()
    assert deaths.died(KILLED, ["m", "n"]) == frozenset()
    kernel.kill()
    assert deaths.died(KILLED, ["m"]) == {"m"}
    assert deaths.left_out == {"m"}
    kernel.kill()
    assert deaths.died(KILLED, ["n"]) == {"n"}
    assert deaths.left_out == {"m", "n"}


def test_a_model_that_served_in_between_is_not() -> None:
    deaths = WorkerDeaths(Kernel())
    deaths.died(CRASHED, ["m"])
    deaths.served(["m", "other"])
    deaths.died(CRASHED, ["m"])
    assert deaths.left_out == frozenset()


@pytest.mark.parametrize("code", [0, 1, 70, -signal.SIGTERM, None, KILLED])
def test_a_death_of_another_cause_is_nobodys_fault(code: int | None) -> None:
    deaths = WorkerDeaths(Kernel())
    for _ in range(3):
        deaths.died(code, ["m"])
        assert deaths.ran({M: 8}) == {}
    assert deaths.left_out == frozenset()


def test_batches_that_used_up_the_memory_are_halved_over_all_fronts() -> None:
    kernel = Kernel()
    deaths = WorkerDeaths(kernel)
    kernel.kill()
    deaths.died(KILLED, [])
    assert deaths.ran({M: 6, N: 1}) == {M: 3}
    assert deaths.ran({M: 10}) == {M: 8}
    assert deaths.batch_limits == {M: 8}
    kernel.kill()
    deaths.died(KILLED, [])
    # What ran were two batches, beside each other.
    assert deaths.ran({M: 16}) == {M: 4}
    kernel.kill()
    deaths.died(KILLED, [])
    assert deaths.ran({M: 3, N: 2}) == {M: 1, N: 1}
    assert deaths.batch_limits == {M: 1, N: 1}


def test_a_batch_in_which_native_code_crashed_was_not_too_large() -> None:
    deaths = WorkerDeaths(Kernel())
    deaths.died(CRASHED, [])
    assert deaths.ran({M: 8}) == {}
