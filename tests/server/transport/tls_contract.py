"""TLS: certificates of the server and of its callers. A class per transport inherits it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import grpc
import pytest
import trustme
from inferd_server.errors import CredentialsError
from inferd_server.transport.call import Context, Routes
from inferd_server.transport.credentials import Credentials

from tests.server.serving import failure
from tests.server.transport.client import PATIENCE, Client, connect
from tests.server.transport.contract import OPTIONS, PATH, TransportContract, echo
from tests.server.transport.stream_contract import Echoing, echo_stream

STREAM = "/test.Service/S"
ROUTES = Routes(unary={PATH: echo}, streams={STREAM: lambda s: Echoing(s, echo_stream)})
Source = Callable[[], Credentials]


def root(authority: trustme.CA) -> bytes:
    return authority.cert_pem.bytes()


def issued(authority: trustme.CA, client_ca: bytes | None = None) -> Credentials:
    return credentials(authority.issue_cert("127.0.0.1"), client_ca)


def credentials(certificate: trustme.LeafCert, client_ca: bytes | None = None) -> Credentials:
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    key = certificate.private_key_pem.bytes()
    return Credentials(key, chain, client_ca, require_client=client_ca is not None)


def trusting(authority: trustme.CA, caller: Credentials | None = None) -> grpc.ChannelCredentials:
    if caller is None:
        return grpc.ssl_channel_credentials(root(authority))
    return grpc.ssl_channel_credentials(
        root(authority), caller.private_key, caller.certificate_chain
    )


def echoed(client: Client, credentials: grpc.ChannelCredentials | None) -> bytes:
    """Call over a new connection."""
    with connect(client.address, credentials) as channel:
        return channel.unary_unary(PATH)(b"hello", timeout=PATIENCE)


def refused(client: Client, credentials: grpc.ChannelCredentials | None) -> bool:
    code = failure(lambda: echoed(client, credentials)).code()
    return code is grpc.StatusCode.UNAVAILABLE


class Rotating:
    """Credentials that the test changes."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials: Credentials | None = credentials

    def __call__(self) -> Credentials:
        if self.credentials is None:
            raise OSError("the file is gone")
        return self.credentials


class TlsContract(TransportContract):
    """Who trusts whom."""

    @contextmanager
    def secure(self, source: Source) -> Iterator[Client]:
        with self.serve_with(credentials=source)(ROUTES) as client:
            yield client

    def test_a_caller_that_trusts_the_authority_is_served(self, authority: trustme.CA) -> None:
        with self.secure(lambda: issued(authority)) as client:
            assert echoed(client, trusting(authority)) == b"hello"
            with connect(client.address, trusting(authority)) as channel:
                answers = channel.stream_stream("/test.Service/S")(iter([b"1"]), timeout=PATIENCE)
                assert list(answers) == [b"<1>"]

    def test_a_caller_without_tls_or_trust_is_not(
        self, authority: trustme.CA, stranger: trustme.CA
    ) -> None:
        with self.secure(lambda: issued(authority)) as client:
            assert refused(client, None)
            assert refused(client, trusting(stranger))
            assert echoed(client, trusting(authority)) == b"hello"

    def test_callers_need_a_certificate_where_the_server_asks_for_one(
        self, authority: trustme.CA, stranger: trustme.CA
    ) -> None:
        mutual = issued(authority, client_ca=root(authority))
        with self.secure(lambda: mutual) as client:
            assert echoed(client, trusting(authority, issued(authority))) == b"hello"
            assert refused(client, trusting(authority))
            assert refused(client, trusting(authority, issued(stranger)))

    def test_a_handler_knows_the_names_in_the_callers_certificate(
        self, authority: trustme.CA
    ) -> None:
        def tell(caller: Context) -> bytes:
            return ",".join(caller.certificate_names).encode()

        routes = Routes(
            unary={PATH: lambda call: call.reply((tell(call),))},
            streams={STREAM: lambda s: Echoing(s, lambda s, _: s.send((tell(s),)))},
        )
        mutual = issued(authority, client_ca=root(authority))
        for names, common_name, told in (
            (("b.test", "a.test"), None, {b"b.test,a.test", b"a.test,b.test"}),
            (("a.test",), "A", {b"a.test"}),
            ((), "A", {b"A"}),
        ):
            shown = credentials(authority.issue_cert(*names, common_name=common_name))
            with (
                self.serve_with(credentials=lambda: mutual)(routes) as client,
                connect(client.address, trusting(authority, shown)) as channel,
            ):
                assert channel.unary_unary(PATH)(b"", timeout=PATIENCE) in told
                answers = channel.stream_stream(STREAM)(iter([b"1"]), timeout=PATIENCE)
                assert set(answers) <= told

    def test_a_caller_without_a_certificate_has_no_names(self, authority: trustme.CA) -> None:
        routes = Routes(unary={PATH: lambda c: c.reply((repr(c.certificate_names).encode(),))})
        own = issued(authority)
        with self.serve_with(credentials=lambda: own)(routes) as client:
            assert echoed(client, trusting(authority)) == b"()"
        with self.serve_with()(routes) as client:
            assert echoed(client, None) == b"()"

    def test_new_certificates_serve_new_connections_and_old_connections_go_on(
        self, authority: trustme.CA, stranger: trustme.CA
    ) -> None:
        rotating = Rotating(issued(authority))
        with (
            self.secure(rotating) as client,
            connect(client.address, trusting(authority)) as channel,
        ):
            call = channel.unary_unary(PATH)
            assert call(b"before", timeout=PATIENCE) == b"before"
            rotating.credentials = issued(stranger)
            assert echoed(client, trusting(stranger)) == b"hello"
            assert refused(client, trusting(authority))
            assert call(b"after", timeout=PATIENCE) == b"after"

    def test_certificates_that_cannot_be_had_leave_the_old_ones(
        self, authority: trustme.CA
    ) -> None:
        rotating = Rotating(issued(authority))
        with self.secure(rotating) as client:
            rotating.credentials = None
            assert echoed(client, trusting(authority)) == b"hello"

    def test_that_callers_need_certificates_cannot_change(
        self, authority: trustme.CA, stranger: trustme.CA
    ) -> None:
        rotating = Rotating(issued(authority, client_ca=root(authority)))
        with self.secure(rotating) as client:
            rotating.credentials = issued(stranger)
            assert refused(client, trusting(stranger))
            assert echoed(client, trusting(authority, issued(authority))) == b"hello"

    @pytest.mark.parametrize("damage", ["key", "chain", "other key"])
    def test_keys_and_certificates_that_cannot_be_used_are_said(
        self, authority: trustme.CA, damage: str
    ) -> None:
        good, other = issued(authority), issued(authority)
        bad = {
            "key": Credentials(b"no key", good.certificate_chain),
            "chain": Credentials(good.private_key, b"no certificate"),
            "other key": Credentials(other.private_key, good.certificate_chain),
        }[damage]
        transport = self.make(replace(OPTIONS, credentials=lambda: bad))
        with pytest.raises(CredentialsError, match="TLS"):
            transport.start("127.0.0.1:0", Routes())


def test_a_request_for_certificates_and_their_authority_go_together() -> None:
    for client_ca, require_client in ((b"ca", False), (None, True)):
        with pytest.raises(ValueError, match="go together"):
            Credentials(b"key", b"chain", client_ca, require_client)
