"""Which GPUs get a worker each, by the settings and what there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from inferd_engines.devices import Device, DeviceProblem
from inferd_server.errors import StartupError
from inferd_server.processes.policy import Arrangement
from inferd_server.processes.run import devices_for
from inferd_server.settings.sources import load_settings

HOST = [Device("GPU-aa"), Device("GPU-bb")]
SPLIT = Arrangement(1, "a test")


def devices(
    found: Sequence[Device] | DeviceProblem, arrangement: Arrangement = SPLIT, **flags: str
) -> Sequence[Device]:
    def find(environment: Mapping[str, str]) -> Sequence[Device]:
        assert environment
        if isinstance(found, DeviceProblem):
            raise found
        return found

    return devices_for(load_settings(flags, {}), arrangement, find)


def test_every_gpu_gets_a_worker_where_one_is_asked_for() -> None:
    assert devices(HOST, plan_store="/plans") == HOST
    assert devices(HOST, engine_providers="CUDAExecutionProvider") == HOST


def test_nobody_looks_for_gpus_where_none_is_asked_for_or_there_is_no_worker() -> None:
    absent = DeviceProblem("nobody may look")
    assert devices(absent) == ()
    assert devices(absent, engine_providers="CPUExecutionProvider") == ()
    assert devices(absent, Arrangement(0, "a test"), plan_store="/plans", gpus="0") == ()
    assert devices(absent, Arrangement(0, "a test", 2), plan_store="/plans", gpus="0") == ()


@pytest.mark.parametrize("found", [[], HOST[:1], DeviceProblem("there is no driver")])
def test_one_gpu_or_none_is_left_to_the_only_worker(found: Sequence[Device]) -> None:
    assert devices(found, plan_store="/plans") == (found if found == [] else ())


def test_those_that_are_named_are_taken_in_that_order_though_it_be_one() -> None:
    assert devices(HOST, plan_store="/plans", gpus="GPU-b,0") == HOST[::-1]
    assert devices(HOST, plan_store="/plans", gpus="1") == HOST[1:]


@pytest.mark.parametrize(
    ("found", "why"),
    [(HOST, "'2' is not one GPU of this host"), (DeviceProblem("no driver"), "gpus: no driver")],
)
def test_a_gpu_that_is_named_and_not_there_ends_the_start(
    found: Sequence[Device] | DeviceProblem, why: str
) -> None:
    with pytest.raises(StartupError, match=why):
        devices(found, plan_store="/plans", gpus="2")
