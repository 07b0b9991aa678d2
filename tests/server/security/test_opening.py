"""The settings decide what stands before the handlers."""

from __future__ import annotations

from pathlib import Path

import pytest
from inferd_server.errors import InferdError
from inferd_server.rpc.control import control_allowed
from inferd_server.security.access import Fixed
from inferd_server.security.guard import Guard
from inferd_server.security.opening import check_security, open_access
from inferd_server.security.permissions import METHODS
from inferd_server.settings.sources import load_settings
from inferd_server.transport.call import Caller

from tests.fakes.call import FakeCall
from tests.fakes.clock import FakeClock
from tests.server.security.named import entry, written

INFERENCE = "/inference.GRPCInferenceService/"
LABELS = {"/inferd.v1.FeedbackService/Feedback"}
LOADING = {f"{INFERENCE}RepositoryModel{name}" for name in ("Load", "Unload")}
ADMIN = {
    f"{INFERENCE}{name}"
    for name in (
        *("SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister"),
        *("CudaSharedMemoryStatus", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister"),
        *("TraceSetting", "LogSettings"),
    )
} | {method for method in METHODS if method.startswith("/inferd.v1.ReleaseService/")}


def told(method: str, caller: Caller, error: InferdError) -> None:
    """Take a refusal."""


def closed(**settings: str) -> set[str]:
    """Return the methods that a caller without anything to show is refused."""
    access = open_access(load_settings(settings, {}), FakeClock(), told)
    decided = {method: access.authorize(method) for method in METHODS}
    return {
        method for method, decide in decided.items() if decide is not None and decide(FakeCall())
    }


def test_on_this_host_alone_everything_is_open() -> None:
    assert closed(host="127.0.0.1") == closed(host="localhost") == closed(host="::1") == set()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "example.test"])
def test_where_others_can_call_what_changes_the_server_or_its_figures_is_closed(host: str) -> None:
    # Of loading, model_control decides.
    assert closed(host=host) == ADMIN | LABELS


def test_the_operator_may_open_it_and_close_more() -> None:
    assert closed(host="0.0.0.0", anonymous_permissions="infer,read,feedback,admin") == set()
    assert closed(anonymous_permissions="infer,read") == ADMIN | LABELS | LOADING
    assert len(closed(anonymous_permissions="")) == len(METHODS) - 2


def test_identities_close_everything_to_others_but_health(tmp_path: Path) -> None:
    path = str(written(tmp_path / "identities.yaml", entry("a", "infer")))
    health = {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"}
    assert closed(identities_file=path) == set(METHODS) - health
    assert (
        closed(identities_file=path, anonymous_permissions="infer,read") == ADMIN | LABELS | LOADING
    )


@pytest.mark.parametrize(
    ("settings", "permissions"),
    [
        ({"host": "0.0.0.0"}, "infer, read"),
        ({"host": "::", "anonymous_permissions": "infer"}, "infer"),
        ({"host": "0.0.0.0", "anonymous_permissions": ""}, None),
        ({"host": "127.0.0.1"}, None),
    ],
)
def test_a_server_that_cannot_tell_callers_apart_says_so_where_others_reach_it(
    settings: dict[str, str], permissions: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    check_security(load_settings(settings, {}))
    said = [vars(record)["permissions"] for record in caplog.records]
    assert said == ([] if permissions is None else [permissions])


def test_only_identities_cost_anything(tmp_path: Path) -> None:
    path = str(written(tmp_path / "identities.yaml", entry("a", "infer")))
    clock = FakeClock()
    assert isinstance(open_access(load_settings({}, {}), clock, told), Fixed)
    guarded = open_access(load_settings({"identities_file": path}, {}), clock, told)
    assert isinstance(guarded, Guard)


@pytest.mark.parametrize(
    ("control", "host", "says_who", "allowed"),
    [
        ("auto", "127.0.0.1", False, True),
        ("auto", "0.0.0.0", False, False),
        ("auto", "0.0.0.0", True, True),
        ("on", "0.0.0.0", False, True),
        ("off", "127.0.0.1", True, False),
    ],
)
def test_model_control_is_open_where_others_cannot_come_or_somebody_said_who(
    control: str, host: str, says_who: bool, allowed: bool
) -> None:
    assert control_allowed(control, host, says_who) is allowed
