"""Certificates and tokens, right and wrong, against a server, over both transports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import pytest
import trustme
from inferd_server.batching.inline import InlineLoop

from tests.server.security.certificates import Files, Pair, expired, issued, trusting
from tests.server.security.named import entry, written
from tests.server.security.secured import Caller, calling, repository, told
from tests.server.serving import Running, arrays, failure, running

Serve = Callable[..., AbstractContextManager[Running]]
UNAVAILABLE = ("UNAVAILABLE", "")


@pytest.fixture(params=["aio", "completion_queue"])
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Serve:
    """Serve a model with settings."""
    folder = repository(tmp_path / "models")

    def start(**settings: object) -> AbstractContextManager[Running]:
        inline = None if request.param == "aio" else InlineLoop(time.monotonic)
        return running(folder, inline=inline, **settings)

    return start


@pytest.fixture
def identities(tmp_path: Path) -> Path:
    return written(
        tmp_path / "identities.yaml",
        entry("all", "infer", "read", "feedback", "admin"),
        entry("inferring", "infer"),
        entry("reading", "read"),
        entry("labelling", "feedback"),
        entry("idle"),
        entry("service", "infer", certificates=["service.internal"]),
        entry("old service", "infer", certificates=["Old Service"]),
        entry("machine", "read", certificates=["10.0.0.7"]),
        entry("pod", "admin", certificates=["spiffe://cluster/pod"]),
    )


def outcome(attempt: Callable[[], object]) -> tuple[str, str]:
    """Return OK, or how it failed and why."""
    try:
        attempt()
    except grpc.RpcError as error:
        return told(error)
    return "OK", ""


def outcomes(caller: Caller) -> dict[str, tuple[str, str]]:
    """Return how a call of every kind goes."""
    attempts = (
        *(caller.infer, caller.stream, caller.read, caller.feedback),
        *(caller.load, caller.log, caller.regions),
    )
    return {attempt.__name__: outcome(attempt) for attempt in attempts}


def only(*good: str, otherwise: tuple[str, str]) -> dict[str, tuple[str, str]]:
    kinds = ("infer", "stream", "read", "feedback", "load", "log", "regions")
    return {kind: ("OK", "") if kind in good else otherwise for kind in kinds}


INFER = ("infer", "stream")
ADMIN = ("load", "log", "regions")
DENIED = ("PERMISSION_DENIED", "PERMISSION_MISSING")


def unauthenticated(reason: str) -> tuple[str, str]:
    return "UNAUTHENTICATED", reason


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("all-token", only(*INFER, "read", "feedback", *ADMIN, otherwise=DENIED)),
        ("inferring-token", only(*INFER, otherwise=DENIED)),
        ("reading-token", only("read", otherwise=DENIED)),
        ("labelling-token", only("feedback", otherwise=DENIED)),
        ("idle-token", only(otherwise=DENIED)),
        ("wrong-token", only(otherwise=unauthenticated("TOKEN_UNKNOWN"))),
        ("", only(otherwise=unauthenticated("TOKEN_EMPTY"))),
        (None, only(otherwise=unauthenticated("CREDENTIALS_MISSING"))),
    ],
)
def test_a_token_opens_what_its_identity_may(
    serve: Serve,
    files: Files,
    authority: trustme.CA,
    identities: Path,
    token: str | None,
    expected: dict[str, tuple[str, str]],
) -> None:
    with (
        serve(**files.settings(), identities_file=identities) as server,
        calling(server.port, trusting(authority), token) as caller,
    ):
        assert outcomes(caller) == expected
        assert caller.serving()


@pytest.mark.parametrize(
    ("name", "common_name", "expected"),
    [
        ("service.internal", None, only(*INFER, otherwise=DENIED)),
        (None, "Old Service", only(*INFER, otherwise=DENIED)),
        ("10.0.0.7", None, only("read", otherwise=DENIED)),
        ("other.internal", None, only(otherwise=unauthenticated("CERTIFICATE_UNKNOWN"))),
        # A common name counts only where there is nothing better.
        ("x.internal", "Old Service", only(otherwise=unauthenticated("CERTIFICATE_UNKNOWN"))),
    ],
)
def test_a_certificate_opens_what_its_identity_may(
    serve: Serve,
    files: Files,
    authority: trustme.CA,
    identities: Path,
    name: str | None,
    common_name: str | None,
    expected: dict[str, tuple[str, str]],
) -> None:
    shown = issued(authority, *([name] if name else []), common_name=common_name)
    with (
        serve(**files.settings(mutual=True), identities_file=identities) as server,
        calling(server.port, trusting(authority, shown)) as caller,
    ):
        assert outcomes(caller) == expected


def test_a_token_counts_before_the_certificate(
    serve: Serve, files: Files, authority: trustme.CA, identities: Path
) -> None:
    shown = trusting(authority, issued(authority, "service.internal"))
    settings = {**files.settings(mutual=True), "identities_file": identities}
    with serve(**settings) as server:
        with calling(server.port, shown, "reading-token") as caller:
            assert outcomes(caller) == only("read", otherwise=DENIED)
        with calling(server.port, shown, "wrong-token") as caller:
            assert outcome(caller.infer) == unauthenticated("TOKEN_UNKNOWN")


def strangers(authority: trustme.CA, stranger: trustme.CA) -> Iterator[tuple[str, object]]:
    """Yield every way not to be let in: by name, the credentials of a channel."""
    good = issued(authority, "service.internal")
    yield "plaintext", None
    yield "no certificate", trusting(authority)
    yield "foreign", trusting(authority, issued(stranger, "service.internal"))
    yield "expired", trusting(authority, expired(authority, "service.internal"))
    yield "trusts another", trusting(stranger, good)
    yield "another's key", trusting(authority, Pair(good.chain, issued(authority, "x").key))


def test_callers_without_a_good_certificate_get_no_connection_where_one_is_asked_for(
    serve: Serve, files: Files, authority: trustme.CA, stranger: trustme.CA
) -> None:
    good = trusting(authority, issued(authority, "anything.internal"))
    with serve(**files.settings(mutual=True)) as server:
        for name, credentials in strangers(authority, stranger):
            with calling(server.port, credentials, "all-token") as caller:  # type: ignore[arg-type]
                assert outcome(caller.infer) == UNAVAILABLE, name
        with calling(server.port, good) as caller:
            # An authority vouched for it, and nobody said more.
            assert outcomes(caller) == only(*INFER, "read", "feedback", *ADMIN, otherwise=DENIED)


@pytest.mark.parametrize("wrong", ["expired", "foreign", "of another host"])
def test_a_caller_that_checks_does_not_talk_to_a_server_with_a_wrong_certificate(
    serve: Serve, files: Files, authority: trustme.CA, stranger: trustme.CA, wrong: str
) -> None:
    files.put(
        {
            "expired": expired(authority, "127.0.0.1"),
            "foreign": issued(stranger, "127.0.0.1"),
            "of another host": issued(authority, "10.1.2.3"),
        }[wrong]
    )
    with (
        serve(**files.settings()) as server,
        calling(server.port, trusting(authority)) as caller,
    ):
        assert outcome(caller.infer) == UNAVAILABLE


def test_new_certificates_serve_new_connections_and_broken_ones_do_not(
    serve: Serve, files: Files, authority: trustme.CA, stranger: trustme.CA
) -> None:
    with (
        serve(**files.settings()) as server,
        calling(server.port, trusting(authority)) as before,
    ):
        before.infer()
        files.put(issued(stranger, "127.0.0.1"))
        with calling(server.port, trusting(stranger)) as caller:
            caller.infer()
        files.key.write_bytes(b"broken")
        with calling(server.port, trusting(stranger)) as caller:
            caller.infer()
        with calling(server.port, trusting(authority)) as caller:
            assert outcome(caller.infer) == UNAVAILABLE
        before.infer()


def test_a_caller_above_its_limit_is_refused_and_told_when_to_try_again(
    serve: Serve, tmp_path: Path
) -> None:
    path = written(
        tmp_path / "identities.yaml",
        entry("slow", "infer", requests_per_second=0.001),
        entry("other", "infer"),
    )
    with serve(identities_file=path) as server:
        with calling(server.port, token="slow-token") as caller:
            caller.infer()
            error = failure(caller.infer)
            assert told(error) == ("RESOURCE_EXHAUSTED", "RATE_LIMIT")
            assert int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) > 900_000
        with calling(server.port, token="other-token") as caller:
            caller.infer()
        with calling(server.port, token="slow-token") as caller:
            # The messages of a stream count, and are refused one by one.
            refused = [answer.error_message for answer in caller.stream(2)]
            assert refused == ["'slow' may have 0.001 requests a second"] * 2


def test_messages_of_a_stream_take_their_part_of_a_limit(serve: Serve, tmp_path: Path) -> None:
    limited = entry("a", "infer", requests_per_second=2.0**-10)
    path = written(tmp_path / "identities.yaml", limited)
    with serve(identities_file=path) as server, calling(server.port, token="a-token") as caller:
        answers = {answer.infer_response.id: answer for answer in caller.stream(3)}
        good = [ident for ident, answer in answers.items() if not answer.error_message]
        assert good == ["0"]
        assert arrays(answers["0"].infer_response)["OUTPUT0"].tolist() == [[0.0] * 4]
        assert answers["2"].infer_response.parameters["inferd_error"].string_param == (
            "ResourceExhausted"
        )


def test_what_is_closed_to_all_is_refused_and_the_rest_is_as_ever(serve: Serve) -> None:
    with serve(anonymous_permissions="infer") as server, calling(server.port) as caller:
        closed = ("PERMISSION_DENIED", "METHOD_CLOSED")
        assert outcomes(caller) == only(*INFER, otherwise=closed)
        assert caller.serving()


def test_without_any_setting_this_host_may_do_everything(serve: Serve) -> None:
    with serve() as server, calling(server.port, token="sent for nothing") as caller:
        assert outcomes(caller) == only(*INFER, "read", "feedback", *ADMIN, otherwise=DENIED)


def test_refused_requests_are_counted(serve: Serve, identities: Path) -> None:
    with serve(identities_file=identities) as server, calling(server.port) as caller:
        assert outcome(caller.infer) == unauthenticated("CREDENTIALS_MISSING")
        assert outcome(caller.read) == unauthenticated("CREDENTIALS_MISSING")
        assert server.server is not None
        refused = server.server._metrics.snapshot().refused
        assert [(key[-1], count.value) for key, count in refused.items()] == [
            ("UNAUTHENTICATED", 1)
        ]


def test_probes_are_answered_in_plaintext_and_nothing_else_is(
    serve: Serve, files: Files, authority: trustme.CA, identities: Path
) -> None:
    settings = {**files.settings(mutual=True), "identities_file": identities, "probe_port": 0}
    with serve(**settings) as server:
        assert server.server is not None
        with calling(server.server.probe_port, token="all-token") as caller:
            assert caller.serving()
            assert outcomes(caller) == only(otherwise=("UNIMPLEMENTED", ""))
        with calling(server.server.probe_port, trusting(authority)) as caller:
            assert outcome(caller.serving) == UNAVAILABLE
