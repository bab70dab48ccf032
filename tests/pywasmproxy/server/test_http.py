"""HTTP through the whole proxy on real sockets: framing, keep-alive, pipelining, trailers, direct answers."""

from __future__ import annotations

import asyncio

import pytest

from tests.pywasmproxy.server.support import (
    Client,
    Lines,
    Visit,
    answer,
    bootstrap,
    cluster,
    echo,
    hello,
    listener,
    port_of,
    proxy,
    telling,
    upstream,
)
from tests.pywasmproxy.server.verdicts import ACCEPTED, REFUSED


@pytest.fixture(params=["h11", "httptools"])
def codec(request: pytest.FixtureRequest) -> str:
    if request.param == "httptools":
        pytest.importorskip("httptools", reason="extra: fast")
    return str(request.param)


async def test_a_plain_request(codec: str) -> None:
    async with (
        upstream(hello) as up,
        proxy(bootstrap(listener(), clusters=cluster(up.port)), codec=codec) as server,
    ):
        assert server.url == f"http://127.0.0.1:{port_of(server)}"
        client = await Client.open(port_of(server))
        response = await client.get(
            "/a?b", b"X-Client: 1\r\nConnection: keep-alive, x-hop\r\nKeep-Alive: 5\r\n"
        )
        assert (response.status, response.body) == (200, b"Hello World!")
        names = [name for name, _ in response.fields]
        assert names == ["content-length", "x-envoy-upstream-service-time", "date", "server"]
        assert response.one("server") == "envoy"
        again = await client.get("/b")
        assert again.body == b"Hello World!"
        client.close()
    assert up.visits == 1  # the upstream connection was used twice
    lines = up.heads[0].decode().split("\r\n")
    assert lines[0] == "GET /a?b HTTP/1.1"
    assert lines[1:4] == ["host: a.test", "x-client: 1", "x-forwarded-proto: http"]
    assert lines[4].startswith("x-request-id: ")
    assert lines[5] == "x-envoy-expected-rq-timeout-ms: 15000"
    assert lines[6:] == ["", ""]


async def test_bodies_both_ways(codec: str) -> None:
    async def handler(visit: Visit) -> None:
        while True:
            _, body = await visit.request()
            visit.send(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
                % (len(body), body)
            )

    async with (
        upstream(handler) as up,
        proxy(bootstrap(listener(), clusters=cluster(up.port)), codec=codec) as server,
    ):
        client = await Client.open(port_of(server))
        response = await client.post("/", b"by length")
        assert response.body == b"by length"
        assert response.one("transfer-encoding") == "chunked"
        client.send(
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
            b"3\r\nby \r\n6\r\nchunks\r\n0\r\n\r\n"
        )
        assert (await client.response()).body == b"by chunks"
        client.close()
    assert b"\r\ncontent-length: 9\r\n" in up.heads[0]
    assert up.heads[1].endswith(b"\r\ntransfer-encoding: chunked\r\n\r\n")


@pytest.mark.parametrize("size", [1, 70_000, 5_000_000])
async def test_large_bodies(size: int) -> None:
    async with upstream(echo) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        body = bytes(range(256)) * (size // 256 + 1)
        response = await client.post("/x", body)
        assert response.body == b"POST /x HTTP/1.1|" + body
        client.close()


@pytest.mark.parametrize("limit", [4096, 1 << 20])
async def test_a_cluster_s_connections_hold_only_so_much(limit: int) -> None:
    """A client is asked to stop when its upstream reads nothing: earlier where the cluster says so."""
    release = asyncio.Event()

    async def handler(visit: Visit) -> None:
        await release.wait()
        _, body = await visit.request()
        visit.send(answer(b"%d" % len(body)))

    options = f"per_connection_buffer_limit_bytes: {limit}"
    async with (
        upstream(handler) as up,
        proxy(bootstrap(listener(), clusters=cluster(up.port, options=options))) as server,
    ):
        client = await Client.open(port_of(server))
        size = 8_000_000
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size)
        client.send(b"x" * size)
        await asyncio.sleep(0.3)
        (connection,) = server.clusters["up"].connections
        transport = connection._transport
        assert transport is not None
        assert transport.get_write_buffer_limits()[1] == min(limit, 64 * 1024)
        assert transport.get_write_buffer_size() < 1_000_000
        release.set()
        assert (await client.response()).body == b"%d" % size
        client.close()


async def test_pipelined_requests_are_answered_in_order() -> None:
    async def handler(visit: Visit) -> None:
        while True:
            head, body = await visit.request()
            if b"/slow" in head:
                await asyncio.sleep(0.05)
            visit.send(answer(head.split()[1] + body))

    async with upstream(handler) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        one = b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n"
        two = b"POST /two HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc"
        three = b"POST /3 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
        client.send(one + two + three + one)
        assert [(await client.response()).body for _ in range(4)] == [b"/slow", b"/twoabc", b"/3x", b"/slow"]
        client.close()


async def test_many_pipelined_requests_do_not_pile_up() -> None:
    async def handler(visit: Visit) -> None:
        await visit.request()
        await asyncio.sleep(0.3)
        visit.send(answer())
        await hello(visit)

    async with upstream(handler) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        request = b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 10_000 + b"\r\n\r\n"
        client.send(request * 50)
        await asyncio.sleep(0.15)
        (connection,) = server.listeners[0].connections
        assert connection._reader.buffered < 400_000  # a read may bring up to 256 KiB at once
        for _ in range(50):
            assert (await client.response()).status == 200
        client.close()


async def test_connection_close() -> None:
    async with upstream(hello) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        response = await client.get("/", b"connection: close\r\n")
        assert response.one("connection") == "close"
        assert response.body == b"Hello World!"
        assert await client.closed()


async def test_upstream_that_closes_after_each_response() -> None:
    async def handler(visit: Visit) -> None:
        await visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end")

    async with upstream(handler) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        for _ in range(3):
            response = await client.get()
            assert response.body == b"to the end"
            assert response.complete
            assert response.one("transfer-encoding") == "chunked"
            assert response.one("connection") is None
        client.close()
    assert up.visits == 3


async def test_bodiless_responses() -> None:
    async def handler(visit: Visit) -> None:
        while True:
            head, _ = await visit.request()
            if head.startswith(b"HEAD"):
                visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 300\r\n\r\n")
            elif b"/304" in head:
                visit.send(b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\netag: x\r\n\r\n")
            else:
                visit.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with upstream(handler) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        client.send(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n")
        response = await client.response(to_head=True)
        assert response.one("content-length") == "300"
        assert (await client.get("/304")).one("etag") == "x"
        response = await client.get("/204")
        assert response.status == 204
        assert response.one("content-length") is None
        assert response.one("transfer-encoding") is None
        client.close()
    assert up.visits == 1


async def test_expect_continue() -> None:
    async with upstream(echo) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
        assert (await client.response()).status == 100
        client.send(b"abc")
        assert (await client.response()).body == b"POST / HTTP/1.1|abc"
        client.close()
    assert b"\r\nexpect:" not in up.heads[0]


async def test_trailers_only_where_enabled() -> None:
    async def handler(visit: Visit) -> None:
        while True:
            await visit.request()
            visit.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Rt: 1\r\n\r\n")

    request = (
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\ny\r\n0\r\nX-Qt: 2\r\n\r\n"
    )
    options = "http_protocol_options: {enable_trailers: true}"
    protocol = """
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http_protocol_options: {enable_trailers: true}}
"""
    async with upstream(handler) as up:
        enabled = bootstrap(listener(options=options), clusters=cluster(up.port, options=protocol))
        async with proxy(enabled) as server:
            client = await Client.open(port_of(server))
            client.send(request)
            assert (await client.response()).trailers == [("x-rt", "1")]
            client.close()
        async with proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
            client = await Client.open(port_of(server))
            client.send(request)
            response = await client.response()
            assert (response.body, response.trailers) == (b"x", [])
            client.close()
    assert up.trailers == [b"x-qt: 2\r\n\r\n", b"\r\n"]


async def test_http_10() -> None:
    options = 'http_protocol_options: {accept_http_10: true, default_host_for_http_10: "fallback"}'

    async def handler(visit: Visit) -> None:
        while True:
            await visit.request()
            visit.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")

    async with (
        upstream(handler) as up,
        proxy(bootstrap(listener(options=options), clusters=cluster(up.port))) as server,
    ):
        client = await Client.open(port_of(server))
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        response = await client.response()
        assert (response.status, response.body) == (200, b"ok")
        assert response.one("transfer-encoding") is None
        assert await client.closed()
    assert b"\r\nhost: fallback\r\n" in up.heads[0]


async def test_a_listener_as_the_backend_of_another() -> None:
    back = listener(
        '- {match: {prefix: "/"}, direct_response: {status: 201, body: {inline_string: "from the back"}}}',
        name="back",
    )
    async with proxy(bootstrap(back)) as first:
        text = bootstrap(
            listener(),
            listener('- {match: {prefix: "/none"}, direct_response: {status: 204}}', name="other"),
            clusters=cluster(port_of(first, "back")),
        )
        async with proxy(text) as server:
            assert set(server.addresses) == {"main", "other"}
            client = await Client.open(port_of(server))
            response = await client.get()
            assert (response.status, response.body) == (201, b"from the back")
            assert response.one("content-type") == "text/plain"
            client.close()
            client = await Client.open(port_of(server, "other"))
            assert (await client.get("/none")).status == 204
            response = await client.get("/elsewhere")
            assert (response.status, response.one("content-length")) == (404, "0")
            client.close()


async def test_answer_without_reading_the_body_closes_the_connection() -> None:
    direct = listener('- {match: {prefix: "/"}, direct_response: {status: 200, body: {inline_string: "hi"}}}')
    async with proxy(bootstrap(direct)) as server:
        client = await Client.open(port_of(server))
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nabc")
        response = await client.response()
        assert (response.body, response.one("connection")) == (b"hi", "close")
        assert await client.closed()


@pytest.mark.parametrize(("raw", "status"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
async def test_refused_requests_are_answered(raw: bytes, status: int) -> None:
    direct = listener('- {match: {prefix: "/"}, direct_response: {status: 200, body: {inline_string: "hi"}}}')
    lines = Lines()
    async with proxy(bootstrap(direct), log=lines.log()) as server:
        client = await Client.open(port_of(server))
        client.send(raw)
        response = await client.response()
        if response.status == 200:  # answered before the bad part of the body came
            assert response.one("connection") == "close"
        else:
            assert (response.status, response.one("connection")) == (status, "close")
            assert response.one("server") == "envoy"
            assert response.one("date")
            assert "refused: " in lines
        assert await client.closed()
    assert lines.errors() == []


@pytest.mark.parametrize(
    "raw",
    [row[1] for row in ACCEPTED if row[0] != "upgrade and the next"],
    ids=[row[0] for row in ACCEPTED if row[0] != "upgrade and the next"],
)
async def test_accepted_requests_are_answered(raw: bytes) -> None:
    async with upstream(hello) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        client.send(raw)
        response = await client.response()
        assert response.status == (403 if b"upgrade: " in raw else 404 if b" * " in raw else 200)
        client.close()


async def test_bad_chunk_while_forwarding() -> None:
    async with upstream(hello) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
        await asyncio.sleep(0.05)
        client.send(b"-1\r\n")
        assert (await client.response()).status == 400
        assert await client.closed()


async def test_h2c_upgrade_is_ignored() -> None:
    async with upstream(hello) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        fields = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: x\r\n"
        assert (await client.get("/", fields)).status == 200
        client.close()
    assert b"upgrade" not in up.heads[0]
    assert b"http2-settings" not in up.heads[0]


async def test_a_request_names_its_cluster() -> None:
    """As Envoy answers: 503 without a word where the name is missing, or no cluster's."""
    async with upstream(telling(b"one")) as one, upstream(telling(b"two")) as two:
        clusters = cluster(one.port, name="one") + cluster(two.port, name='"a|b"')
        routes = '- {match: {prefix: "/"}, route: {cluster_header: x-to}}'
        async with proxy(bootstrap(listener(routes), clusters=clusters)) as server:
            client = await Client.open(port_of(server))
            for field, status, body in (
                (b"x-to: one", 200, b"one"),
                (b"x-to: a|b", 200, b"two"),
                (b"x-to: one\r\nx-to: nosuch", 200, b"one"),
                (b"x-to: nosuch", 503, b""),
                (b"x-to:", 503, b""),
                (b"x-other: one", 503, b""),
            ):
                got = await client.get("/", field + b"\r\n")
                assert (got.status, got.body) == (status, body), field
            client.close()


async def test_round_robin() -> None:
    async with upstream(hello) as one, upstream(hello) as two:
        text = bootstrap(listener(), clusters=cluster(one.port, two.port))
        async with proxy(text) as server:
            client = await Client.open(port_of(server))
            for _ in range(6):
                await client.get()
            client.close()
        assert (len(one.heads), len(two.heads)) == (3, 3)


@pytest.mark.parametrize("kind", ["STRICT_DNS", "LOGICAL_DNS"])
async def test_names(kind: str) -> None:
    async with upstream(hello) as up:
        options = "dns_lookup_family: V4_ONLY"
        text = bootstrap(listener(), clusters=cluster(up.port, kind=kind, host="localhost", options=options))
        async with proxy(text) as server:
            client = await Client.open(port_of(server))
            assert (await client.get()).body == b"Hello World!"
            client.close()


async def test_interim_responses_are_passed_over_or_on() -> None:
    async def handler(visit: Visit) -> None:
        while True:
            await visit.request()
            visit.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + answer())

    async with upstream(handler) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        response = await client.get()
        while response.status < 200:
            assert response.status != 100
            response = await client.response()
        assert response.body == b"Hello World!"
        client.close()


async def test_connect_is_a_request_without_a_route() -> None:
    direct = listener('- {match: {prefix: "/"}, direct_response: {status: 200, body: {inline_string: "hi"}}}')
    async with proxy(bootstrap(direct)) as server:
        client = await Client.open(port_of(server))
        client.send(b"CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\nbytes for the tunnel")
        response = await client.response()
        assert (response.status, response.one("connection"), response.body) == (404, "close", b"")
