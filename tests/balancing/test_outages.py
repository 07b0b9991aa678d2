"""A server dies at half of what all can do, behind each way to balance, and another one comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import starmap
from pathlib import Path
from statistics import median
from time import monotonic

import numpy as np
import pytest
from inferd_client import Client

from tests import models
from tests.balancing.balancers import NAME, envoy, haproxy, names, nginx
from tests.balancing.cluster import SERVERS, Member, cluster, free_ports, ready
from tests.balancing.paced import Paced

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROWS = {"INPUT0": np.ones((2, 4), np.float32)}
PAIR = {name: np.ones((1, 16), np.int32) for name in ("INPUT0", "INPUT1")}
BACK = 5.0
"""Seconds from the death of a server until calls take as long as before."""
SHARED = 10.0
"""Seconds from when a server is ready until it gets its share."""
AS_BEFORE, LEAST = 3.0, 0.1
"""Times what it was, or seconds, that the p99 may be."""

Balancer = Callable[[Path, Sequence[str]], AbstractContextManager[str]]


@contextmanager
def none(_: Path, addresses: Sequence[str]) -> Iterator[str]:
    """Without a balancer the client has all addresses."""
    yield "ipv4:" + ",".join(addresses)


def capacity(client: Client) -> float:
    """Return how many calls a second are answered when none waits for its moment."""
    with Paced(client, "scaled", ROWS) as load:
        load.run(3.0)
        return load.rate()


def shares(members: Sequence[Member], load: Paced) -> Sequence[float]:
    """Return which part of two seconds' answers comes from each."""
    before = [member.answers() for member in members]
    load.run(2.0)
    came = [member.answers() - count for member, count in zip(members, before, strict=True)]
    return [count / sum(came) for count in came]


def endure(
    client: Client, kill: Callable[[], object], come: Callable[[], Sequence[Member]]
) -> None:
    """Kill a server and have another one come, under half of the load that all could take."""
    with Paced(client, "scaled", ROWS, capacity(client) / 2) as load:
        begun = monotonic()
        load.run(5.0)
        killed = monotonic()
        kill()
        load.run(BACK + 3.0)
        members = come()
        load.run(SHARED - 2.0)
        assert min(shares(members, load)) > 0.8 / SERVERS
    assert load.failures == []
    before = load.p99(begun + 1.0, killed)
    seconds = (killed + BACK + number for number in range(3))
    # One second of the three may have had other work beside it.
    after = median(load.p99(second, second + 1.0) for second in seconds)
    assert after < max(AS_BEFORE * before, LEAST)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.repository(tmp_path_factory.mktemp("models"), {"scaled": models.scale(2.0)})


@pytest.mark.parametrize("balancer", [none, nginx, haproxy, envoy])
def test_no_call_fails_and_the_successor_gets_its_share(
    balancer: Balancer, repository: Path, tmp_path: Path
) -> None:
    with cluster(repository) as members, ExitStack() as stack:
        target = stack.enter_context(balancer(tmp_path, [member.address for member in members]))
        client = stack.enter_context(Client(target, check_health=balancer is none))

        def come() -> Sequence[Member]:
            members[1].start()
            return members

        endure(client, members[1].close, come)


def test_behind_a_name_no_call_fails_and_a_new_address_gets_its_share(
    repository: Path, tmp_path: Path
) -> None:
    [port] = free_ports(1)
    hosts = [f"127.0.0.{number}" for number in range(1, SERVERS + 1)]
    age = ("--max-connection-age-s", "4")
    with (
        ready(Member(repository, port, age, host) for host in hosts) as members,
        ExitStack() as stack,
    ):
        known = stack.enter_context(names(tmp_path, hosts))
        target = f"dns://127.0.0.1:{known.port}/{NAME}:{port}"
        client = stack.enter_context(Client(target, check_health=True))

        def kill() -> None:
            members[1].close()
            known.tell([hosts[0], hosts[2]])

        def come() -> Sequence[Member]:
            made = [Member(repository, port, age, "127.0.0.4")]
            [new] = stack.enter_context(ready(made))
            known.tell([hosts[0], hosts[2], "127.0.0.4"])
            return [members[0], members[2], new]

        endure(client, kill, come)


def test_envoy_gives_a_server_that_is_four_times_slower_less(tmp_path: Path) -> None:
    fast, slow = (
        models.repository(tmp_path / str(rounds), {"m": models.slow_add(rounds)})
        for rounds in (4_000, 16_000)
    )
    placed = zip((fast, fast, slow), free_ports(SERVERS), strict=True)
    with ready(starmap(Member, placed)) as members, ExitStack() as stack:
        target = stack.enter_context(envoy(tmp_path, [member.address for member in members]))
        client = stack.enter_context(Client(target))
        with Paced(client, "m", PAIR, 100.0) as load:
            load.run(2.0)
            assert shares(members, load)[2] == pytest.approx(1 / 3, abs=0.05)
            load.run(16.0)
            # A ninth is what makes all equally busy.
            assert shares(members, load)[2] < 0.2
        assert load.failures == []
