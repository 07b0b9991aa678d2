"""What nginx, HAProxy and Envoy do before servers of which some are away, set up as documented."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from inferd_client import Client, errors

from tests.balancing.balancers import envoy, haproxy, nginx
from tests.balancing.cluster import free_ports
from tests.fakes.flaky_server import FlakyServer

ROUND = 12


@pytest.fixture
def there() -> Iterator[FlakyServer]:
    with FlakyServer(serving=True) as server:
        yield server


@pytest.fixture
def loading() -> Iterator[FlakyServer]:
    with FlakyServer(serving=False) as server:
        yield server


def nobody() -> str:
    return f"127.0.0.1:{free_ports(1)[0]}"


def test_nginx_asks_the_next_server_when_one_is_gone(there: FlakyServer, tmp_path: Path) -> None:
    with (
        nginx(tmp_path, [nobody(), there.address, nobody()]) as address,
        Client(address, retries=False) as client,
    ):
        for _ in range(ROUND):
            client.infer("m", x=np.ones(1, np.int64))
    assert there.calls == ROUND


def test_nginx_says_in_grpcs_words_that_there_is_nobody(tmp_path: Path) -> None:
    with (
        nginx(tmp_path, [nobody(), nobody(), nobody()]) as address,
        Client(address, retries=False) as client,
        pytest.raises(errors.Unavailable, match="no server answered"),
    ):
        client.infer("m", x=1)


@pytest.mark.parametrize("balancer", [haproxy, envoy])
def test_who_asks_for_health_leaves_out_servers_that_are_not_ready(
    balancer: Callable[[Path, Sequence[str]], AbstractContextManager[str]],
    there: FlakyServer,
    loading: FlakyServer,
    tmp_path: Path,
) -> None:
    with (
        balancer(tmp_path, [loading.address, there.address, nobody()]) as address,
        Client(address) as client,
    ):
        seen = -1
        # Before the first check it takes all for ready.
        while loading.calls != seen:
            seen = loading.calls
            for _ in range(ROUND):
                client.infer("m", x=1)
    assert there.calls >= ROUND
