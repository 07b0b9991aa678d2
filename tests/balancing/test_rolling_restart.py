"""Three servers are replaced one after the other under load: no request fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests import models
from tests.balancing.balancers import envoy, haproxy, nginx
from tests.balancing.cluster import Load, Member, cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

NOTICED = ("--drain-delay-s", "2")
"""Time for balancers to notice that a server is about to go."""
SPLIT = ("--processes", "split", "--fronts", "2")
BETWEEN = 200
"""Calls between two replacements, so that the one before is in use again."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.repository(tmp_path_factory.mktemp("models"), {"scaled": models.scale(2.0)})


def addresses(members: Sequence[Member]) -> list[str]:
    return [member.address for member in members]


def target(members: Sequence[Member]) -> str:
    return "ipv4:" + ",".join(addresses(members))


def replace_all(members: Sequence[Member], load: Load, end: Callable[[Member], None]) -> None:
    load.answered(BETWEEN)
    for member in members:
        end(member)
        load.answered(BETWEEN)


@pytest.mark.parametrize("flags", [(), SPLIT], ids=["one process", "split"])
def test_the_client_takes_its_calls_elsewhere(repository: Path, flags: tuple[str, ...]) -> None:
    with cluster(repository, *flags) as members:
        with Load(target(members), check_health=True) as load:
            replace_all(members, load, Member.restart)
        assert load.failures == []


@pytest.mark.parametrize(
    ("balancer", "flags"),
    [(nginx, ()), (haproxy, NOTICED), (envoy, NOTICED)],
    ids=["nginx", "haproxy", "envoy"],
)
def test_a_balancer_takes_calls_elsewhere(
    balancer: Callable[[Path, Sequence[str]], AbstractContextManager[str]],
    flags: tuple[str, ...],
    repository: Path,
    tmp_path: Path,
) -> None:
    with cluster(repository, *flags) as members:
        with balancer(tmp_path, addresses(members)) as address, Load(address) as load:
            replace_all(members, load, Member.restart)
        assert load.failures == []


def test_no_call_has_to_be_made_again_where_the_drain_leaves_time(repository: Path) -> None:
    with cluster(repository, *NOTICED) as members:
        with Load(target(members), check_health=True, retries=False) as load:
            replace_all(members, load, Member.restart)
        assert load.failures == []


def test_servers_that_are_killed_cost_no_request(repository: Path) -> None:
    with cluster(repository) as members:
        with Load(target(members), check_health=True) as load:
            for _ in range(3):
                replace_all(members, load, Member.kill)
        assert load.failures == []


def test_many_replacements_cost_no_request(repository: Path) -> None:
    with cluster(repository) as members:
        with Load(target(members), check_health=True) as load:
            for _ in range(6):
                replace_all(members, load, Member.restart)
        assert load.failures == []
