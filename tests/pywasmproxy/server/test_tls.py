"""TLS on both sides, on real sockets: certificates by name, clients' certificates, broken handshakes."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pywasmproxy.config import load
from pywasmproxy.server.proxy import Server
from tests.abi.rig import BYTES
from tests.pywasmproxy.server.h2_upstream import Visit as H2Visit
from tests.pywasmproxy.server.h2_upstream import h2_upstream
from tests.pywasmproxy.server.scripted import ANSWERED, REQUEST, Scripted
from tests.pywasmproxy.server.support import (
    Client,
    Handler,
    Lines,
    Upstream,
    Visit,
    bootstrap,
    cluster,
    hello,
    indent,
    listener,
    port_of,
    proxy,
    settled,
    upstream,
)
from tests.support.certificates import Authority, Pair

pytestmark = pytest.mark.openssl

UNREACHABLE = (
    "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
)
TYPE = '"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.'


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue(
        "server", "DNS:a.test,DNS:*.b.test,URI:spiffe://x/y,IP:127.0.0.1", subject="/O=We, us/CN=server"
    )


def own(pair: Pair) -> str:
    files = f"certificate_chain: {{filename: {pair.certificate}}}, private_key: {{filename: {pair.key}}}"
    return f"tls_certificates: [{{{files}}}]"


def socket(side: str, common: str, more: str = "") -> str:
    return (
        f"transport_socket: {{name: tls, typed_config: {{{TYPE}{side}TlsContext, "
        f"common_tls_context: {{{common}}} {more}}}}}"
    )


def downstream(pair: Pair, common: str = "", more: str = "", filters: str = "") -> str:
    """A listener with TLS."""
    found = listener(filters=filters)
    tls = socket("Downstream", own(pair) + common, more)
    return found.replace("    - filters:", f"    - {tls}\n      filters:", 1)


def to_tls(port: int, common: str = "", more: str = "") -> str:
    return cluster(port, options=socket("Upstream", common, more))


def trusting(authority: Authority, more: str = "") -> str:
    return f"validation_context: {{trusted_ca: {{filename: {authority.certificate}}} {more}}}"


def context(authority: Authority, identity: Pair | None = None) -> ssl.SSLContext:
    """A client's context."""
    found = ssl.create_default_context(cafile=str(authority.certificate))
    found.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    if identity is not None:
        found.load_cert_chain(identity.certificate, identity.key)
    return found


async def connect(server: Server, client: ssl.SSLContext, name: str = "a.test") -> Client:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port_of(server), ssl=client, server_hostname=name, limit=1 << 22
    )
    return Client(reader, writer)


@contextlib.asynccontextmanager
async def tls_upstream(
    pair: Pair, handler: Handler = hello, client_authority: Authority | None = None
) -> AsyncIterator[Upstream]:
    """A scripted upstream behind TLS."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.certificate, pair.key)
    if client_authority is not None:
        tls.load_verify_locations(client_authority.certificate)
        tls.verify_mode = ssl.CERT_REQUIRED
    one = Upstream(handler)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0, ssl=tls)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        for task in list(one.tasks):
            task.cancel()
        await asyncio.gather(*one.tasks, return_exceptions=True)


# --- clients --------------------------------------------------------------------------------------------


async def test_requests_over_tls(authority: Authority, pair: Pair) -> None:
    async with (
        upstream() as up,
        proxy(bootstrap(downstream(pair), clusters=cluster(up.port))) as server,
    ):
        client = await connect(server, context(authority))
        assert (await client.get()).body == b"Hello World!"
        assert (await client.post("/", b"x" * 300_000)).status == 200
        client.close()
    assert b"x-forwarded-proto: https" in up.heads[0]
    assert up.bodies[1] == b"x" * 300_000


FACTS: dict[str, object] = {
    "connection.mtls": (0, b"\1"),
    "connection.tls_version": (0, b"TLSv1.3"),
    "connection.requested_server_name": (0, b"a.test"),
    "request.scheme": (0, b"https"),
    "connection.subject_local_certificate": (0, b"CN=server,O=We\\, us"),
    "connection.subject_peer_certificate": (0, b"CN=me"),
    "connection.dns_san_local_certificate": (0, b"a.test"),
    "connection.dns_san_peer_certificate": (0, b"me.test"),
    "connection.uri_san_local_certificate": (0, b"spiffe://x/y"),
    "connection.uri_san_peer_certificate": (0, b"spiffe://me"),
    "upstream.tls_version": (1, None),
}


async def test_a_filter_knows_the_session(
    authority: Authority, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = authority.issue("me", "DNS:me.test,URI:spiffe://me")
    guest = Scripted(monkeypatch)
    found: dict[str, object] = {}

    def read(*_: int) -> int:
        for path in FACTS:
            found[path] = guest.ask("proxy_get_property", path.replace(".", "\0").encode(), BYTES)
        return 0

    guest.on(REQUEST, read)
    text = bootstrap(
        downstream(pair, ", " + trusting(authority), filters=guest.config()),
        clusters="",
    ).replace("route: {cluster: up}", "direct_response: {status: 200}")
    async with proxy(text, log=guest.log()) as server:
        client = await connect(server, context(authority, me))
        assert (await client.get()).status == 200
        client.close()
    assert found == FACTS


async def refused(server: Server, client: ssl.SSLContext, name: str = "a.test") -> bool:
    """Whether a client gets no answer (with TLS 1.3 it may only notice when it reads)."""
    try:
        one = await connect(server, client, name)
        with contextlib.suppress(EOFError):
            await one.get()
            return False
        one.close()
    except (ssl.SSLError, ConnectionError):
        pass
    return True


async def test_clients_need_a_certificate(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    strangers = Authority(tmp_path, "strangers")
    text = bootstrap(
        downstream(
            pair,
            ", "
            + trusting(
                authority, ", match_typed_subject_alt_names: [{san_type: DNS, matcher: {suffix: .me.test}}]"
            ),
            ", require_client_certificate: true",
        ),
        clusters="",
    ).replace("route: {cluster: up}", "direct_response: {status: 200}")
    async with proxy(text) as server:
        for names, works in (("DNS:x.me.test", True), ("DNS:other.test", False)):
            identity = authority.issue("client", names)
            assert await refused(server, context(authority, identity)) is not works
        assert await refused(server, context(authority))
        assert await refused(server, context(authority, strangers.issue("client", "DNS:x.me.test")))
        late = authority.issue("late", "DNS:x.me.test", expired=True)
        assert await refused(server, context(authority, late))
        await settled(server)


async def test_the_chain_by_the_name_asked_for(authority: Authority, pair: Pair) -> None:
    other = authority.issue("other", "DNS:*.other.test")
    answering = "direct_response: {status: 200, body: {inline_string: %s}}"
    chains = []
    for name, identity in (("a.test", pair), ('"*.other.test"', other)):
        one = downstream(identity).replace("route: {cluster: up}", answering % name)
        chain = one[one.index("    - transport_socket") :]
        match = f"    - filter_chain_match: {{server_names: [{name}]}}\n      "
        chains.append(chain.replace("    - ", match, 1))
    head = downstream(pair)
    text = bootstrap(head[: head.index("    - transport_socket")] + "".join(chains))
    async with proxy(text) as server:
        for name, body in (("a.test", b"a.test"), ("x.other.test", b"*.other.test")):
            client = await connect(server, context(authority), name)
            assert (await client.get()).body == body
            client.close()
        unchecked = context(authority)
        unchecked.check_hostname = False
        assert await refused(server, unchecked, "nobody.test")


async def test_versions(authority: Authority, pair: Pair) -> None:
    text = bootstrap(
        downstream(pair, ", tls_params: {tls_minimum_protocol_version: TLSv1_3}"), clusters=""
    ).replace("route: {cluster: up}", "direct_response: {status: 200}")
    async with proxy(text) as server:
        old = context(authority)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert await refused(server, old)
        assert not await refused(server, context(authority))


async def test_what_is_no_handshake_ends_the_connection(authority: Authority, pair: Pair) -> None:
    lines = Lines()
    text = bootstrap(
        downstream(pair).replace(
            "      filters:", "      transport_socket_connect_timeout: 0.3s\n      filters:", 1
        ),
        clusters="",
    ).replace("route: {cluster: up}", "direct_response: {status: 200}")
    async with proxy(text, log=lines.log()) as server:
        plain = await Client.open(port_of(server))
        plain.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert not (await plain.reader.read()).startswith(b"HTTP")
        silent = await Client.open(port_of(server))
        assert await silent.closed()
        broken = await Client.open(port_of(server))
        broken.send(b"\x16\x03\x01\x02\x00\x01")
        broken.close()
        assert not await refused(server, context(authority))
    assert lines.errors() == []


async def test_another_certificate_after_a_reload(authority: Authority, pair: Pair) -> None:
    fresh = authority.issue("fresh", "DNS:fresh.test")
    text = bootstrap(downstream(pair)).replace("route: {cluster: up}", "direct_response: {status: 200}")
    async with proxy(text) as server:
        client = await connect(server, context(authority))
        assert (await client.get()).status == 200
        await server.reload(
            load(
                text.replace(str(pair.certificate), str(fresh.certificate)).replace(
                    str(pair.key), str(fresh.key)
                )
            )
        )
        assert (await client.get()).status == 200
        client.close()
        assert not await refused(server, context(authority), "fresh.test")


# --- upstreams ------------------------------------------------------------------------------------------


async def through(text: str) -> tuple[int, bytes]:
    async with proxy(text) as server:
        client = await Client.open(port_of(server))
        response = await client.get()
        client.close()
        return response.status, response.body


async def test_an_upstream_over_tls(authority: Authority, pair: Pair) -> None:
    me = authority.issue("proxy")
    async with tls_upstream(pair, client_authority=authority) as up:
        common = own(me) + ", " + trusting(authority)
        text = bootstrap(listener(), clusters=to_tls(up.port, common, ", sni: a.test"))
        assert await through(text) == (200, b"Hello World!")


@pytest.mark.parametrize(
    ("matcher", "works"),
    [
        ("{san_type: DNS, matcher: {exact: a.test}}", True),
        ("{san_type: DNS, matcher: {exact: c.b.test}}", True),
        ("{san_type: DNS, matcher: {exact: b.test}}", False),
        ("{san_type: URI, matcher: {prefix: 'spiffe://x/'}}", True),
        ("{san_type: IP_ADDRESS, matcher: {exact: 127.0.0.1}}", True),
        ("{san_type: EMAIL, matcher: {exact: a.test}}", False),
    ],
)
async def test_the_upstreams_names(authority: Authority, pair: Pair, matcher: str, works: bool) -> None:
    async with tls_upstream(pair) as up:
        common = trusting(authority, f", match_typed_subject_alt_names: [{matcher}]")
        found = await through(bootstrap(listener(), clusters=to_tls(up.port, common)))
    assert found == ((200, b"Hello World!") if works else (503, UNREACHABLE.encode()))


async def test_upstreams_that_are_not_trusted(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    strangers = Authority(tmp_path, "strangers")
    expired = authority.issue("expired", expired=True)
    for identity, common, status in (
        (pair, trusting(strangers), 503),
        (expired, trusting(authority), 503),
        (expired, "", 200),  # nobody is told to look
        (pair, trusting(authority), 200),
    ):
        async with tls_upstream(identity) as up:
            assert (await through(bootstrap(listener(), clusters=to_tls(up.port, common))))[0] == status


async def test_an_upstream_without_tls_and_one_that_is_silent(authority: Authority) -> None:
    async def silent(visit: object) -> None:
        await asyncio.sleep(5)

    async with upstream() as up:
        assert (await through(bootstrap(listener(), clusters=to_tls(up.port))))[0] == 503
    async with upstream(silent) as up:
        status, body = await through(bootstrap(listener(), clusters=to_tls(up.port)))
        assert (status, body.split(b": ")[-1]) == (503, b"connection timeout")


async def test_tcp_with_tls_on_both_sides(authority: Authority, pair: Pair) -> None:
    async def shouting(visit: Visit) -> None:
        while data := await visit.reader.read(65536):
            visit.send(data.upper())

    chain = f"""
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - {socket("Downstream", own(pair))}
      filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: t
          cluster: up
"""
    async with (
        tls_upstream(pair, shouting) as up,
        proxy(bootstrap(chain, clusters=to_tls(up.port, trusting(authority)))) as server,
    ):
        client = await connect(server, context(authority))
        client.send(b"hello")
        assert await client.reader.readexactly(5) == b"HELLO"
        client.close()
        await settled(server)


async def test_calls_of_guests_over_tls(
    authority: Authority, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP call-outs go through the clusters like everything else, gRPC ones by HTTP/2."""
    pytest.importorskip("h2", reason="extra: h2")
    guest = Scripted(monkeypatch)
    over = asyncio.Event()
    guest.on(REQUEST, lambda *_: bool(guest.http_call(cluster="up")))
    found: list[object] = []

    def answered(*_: int) -> int:
        found.append(guest.answer())
        over.set()
        return 0

    guest.on(ANSWERED, answered)
    text = listener(filters=guest.config()).replace("route: {cluster: up}", "direct_response: {status: 200}")
    async with tls_upstream(pair) as up:
        clusters = to_tls(up.port, trusting(authority))
        async with proxy(bootstrap(text, clusters=clusters), log=guest.log()) as server:
            client = await Client.open(port_of(server))
            client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            async with asyncio.timeout(20):
                await over.wait()
            client.close()
    assert found == [("200", b"Hello World!")]


async def test_grpc_over_tls(authority: Authority, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("h2", reason="extra: h2")
    guest = Scripted(monkeypatch)
    over = asyncio.Event()
    chosen: list[str | None] = []

    def script(visit: H2Visit, number: int, what: str) -> None:
        if what == "end":
            chosen.append(visit.transport.get_extra_info("ssl_object").selected_alpn_protocol())
            visit.answer(number, b"there")

    guest.on(REQUEST, lambda *_: bool(guest.grpc_call()))
    guest.on("proxy_on_grpc_receive", lambda *_: over.set())
    text = listener(filters=guest.config()).replace("route: {cluster: up}", "direct_response: {status: 200}")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.certificate, pair.key)
    tls.set_alpn_protocols(["h2", "http/1.1"])
    async with h2_upstream(script, tls=tls) as up:
        clusters = to_tls(up.port, trusting(authority))
        async with proxy(bootstrap(text, clusters=clusters), log=guest.log()) as server:
            client = await Client.open(port_of(server))
            client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            async with asyncio.timeout(20):
                await over.wait()
            client.close()
    assert chosen == ["h2"]


async def test_a_certificate_that_a_client_only_tells_of_is_not_passed_on(
    authority: Authority, pair: Pair
) -> None:
    forged = b"x-forwarded-client-cert: Hash=forged\r\n"
    details = "forward_client_cert_details: SANITIZE_SET\nset_current_client_cert_details: {subject: true}"
    async with upstream(hello) as up:
        async with proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
            client = await Client.open(port_of(server))
            await client.get(fields=forged)
            client.close()
        text = bootstrap(
            downstream(pair, ", " + trusting(authority)).replace(
                "stat_prefix: test\n", "stat_prefix: test\n" + indent(details, 10) + "\n"
            ),
            clusters=cluster(up.port),
        )
        async with proxy(text) as server:
            client = await connect(server, context(authority, authority.issue("client", "DNS:me.test")))
            await client.get(fields=forged)
            client.close()
        plain, mutual = up.heads
        assert b"client-cert" not in plain
        assert b"forged" not in mutual
        expected = rb'\r\nx-forwarded-client-cert: By=spiffe://x/y;Hash=[0-9a-f]{64};Subject="CN=client"\r\n'
        assert re.search(expected, mutual)
