"""The completion queue serves only where it is proven to work, and the reason is told."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import pytest
from inferd_server.errors import AddressInUse
from inferd_server.transport.aio import AioTransport
from inferd_server.transport.call import Call, Routes, Transport
from inferd_server.transport.completion_queue import CompletionQueueTransport, core
from inferd_server.transport.making import AIO, COMPLETION_QUEUE, choose, minor
from inferd_server.transport.options import TransportOptions
from inferd_server.transport.selftest import selftest

TRANSPORTS: list[Callable[[TransportOptions], Transport]] = [AioTransport, CompletionQueueTransport]


def works() -> str:
    return ""


def never() -> str:
    raise AssertionError("the self-test ran")


@pytest.mark.parametrize("asked", ["auto", COMPLETION_QUEUE])
@pytest.mark.parametrize("version", ["1.2", "1.2.0", "1.2.3", "1.2.4rc1", "1.1.9"])
def test_any_patch_of_a_tested_minor_that_passes_serves(asked: str, version: str) -> None:
    choice = choose(asked, version, ["1.1", "1.2"], [], works)
    assert (choice.name, choice.reason) == (COMPLETION_QUEUE, "")


def test_aio_serves_when_it_was_asked_for_and_nothing_else_is_tried() -> None:
    choice = choose(AIO, "1.2.3", ["1.2"], [], never)
    assert (choice.name, choice.reason) == (AIO, "")


@pytest.mark.parametrize("version", ["9.9.9", "1.20.0", "2.2.0", "1.3.0"])
def test_a_minor_that_was_not_tested_serves_only_when_asked_for(version: str) -> None:
    choice = choose("auto", version, ["1.9", "1.2"], [], never)
    assert choice.name == AIO
    assert version in choice.reason
    assert choose(COMPLETION_QUEUE, version, ["1.2"], [], works).name == COMPLETION_QUEUE


@pytest.mark.parametrize("asked", ["auto", COMPLETION_QUEUE])
def test_a_failed_self_test_falls_back_and_says_what_failed(asked: str) -> None:
    choice = choose(asked, "1.2.3", ["1.2"], [], lambda: "an answer differs")
    assert choice.name == AIO
    assert "an answer differs" in choice.reason


def test_a_layer_that_lacks_something_is_not_even_tried() -> None:
    choice = choose(COMPLETION_QUEUE, "1.2.3", ["1.2"], ["Call.peer"], never)
    assert choice.name == AIO
    assert "Call.peer" in choice.reason


@pytest.mark.parametrize(
    ("version", "missing", "problem"),
    [("9.9.9", [], ""), ("1.10.3", ["Call.peer"], ""), ("1.10.3", [], "an answer differs")],
)
def test_the_reason_says_what_it_costs_and_what_to_install(
    version: str, missing: list[str], problem: str
) -> None:
    reason = choose("auto", version, ["1.9", "1.10"], missing, lambda: problem).reason
    assert "a quarter as many requests a second" in reason
    assert "pip install 'grpcio==1.10.*'" in reason


def test_the_grpcio_that_is_installed_is_of_a_tested_minor() -> None:
    assert minor(version("grpcio")) in core.TESTED


@pytest.mark.parametrize("make", TRANSPORTS)
def test_the_self_test_passes_with_the_transports_that_are_here(
    make: Callable[[TransportOptions], Transport],
) -> None:
    assert selftest(make(TransportOptions())) == ""


class Deaf(AioTransport):
    """A double that cannot listen."""

    def start(self, address: str, routes: Routes) -> int:
        raise AddressInUse(f"{address} cannot be had")


class Confused(AioTransport):
    """A double that answers every unary call alike."""

    def start(self, address: str, routes: Routes) -> int:
        def same(call: Call) -> None:
            call.reply((b"the same",))

        return super().start(address, Routes(dict.fromkeys(routes.unary, same), routes.streams))


def test_the_self_test_tells_a_transport_that_does_not_start() -> None:
    assert "cannot be had" in selftest(Deaf(TransportOptions()))


def test_the_self_test_tells_wrong_answers() -> None:
    assert "differs" in selftest(Confused(TransportOptions()))


def test_the_self_test_tells_calls_that_fail() -> None:
    # The largest message of the self-test is above this limit.
    assert "RESOURCE_EXHAUSTED" in selftest(
        AioTransport(TransportOptions(max_message_bytes=50_000))
    )
