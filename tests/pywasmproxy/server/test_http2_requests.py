"""Requests to clusters whose hosts speak HTTP/2, on real sockets: an upstream that says each frame."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
from h2.settings import SettingCodes

from pywasmproxy.server.codec import HeaderLines
from pywasmproxy.server.http2_requests import response_fields
from pywasmproxy.server.proxy import Server
from tests.pywasmproxy.server.beside import PROXIES, beside
from tests.pywasmproxy.server.h2_upstream import H2Upstream, Script, Visit, h2_upstream
from tests.pywasmproxy.server.scripted import Scripted
from tests.pywasmproxy.server.support import (
    Client,
    Lines,
    bootstrap,
    cluster,
    hello,
    listener,
    port_of,
    proxy,
    settled,
    upstream,
)
from tests.pywasmproxy.server.test_http_call import asking
from tests.pywasmproxy.server.test_secrets import socket as tls_socket
from tests.pywasmproxy.server.test_secrets import trusted
from tests.support.certificates import Authority

HTTP2 = "http2_protocol_options: {}"
NO_HEAD = b"upstream connect error or disconnect/reset before headers. reset reason: "


def respond(
    visit: Visit, number: int, body: bytes = b"fine", status: int = 200, *fields: tuple[str, str]
) -> None:
    """A whole response."""
    visit.protocol.send_headers(number, [(":status", str(status)), *fields], end_stream=not body)
    if body:
        visit.protocol.send_data(number, body, end_stream=True)
    visit.flush()


def echo(visit: Visit, number: int, what: str) -> None:
    """Answers with the request's path and the size of its body."""
    head = visit.heads[number]
    if what == ("head" if head[b":method"] == b"GET" else "end"):
        respond(visit, number, b"%b %d" % (head[b":path"], len(visit.bodies[number])))


def on_head(action: Callable[[Visit, int], object]) -> Script:
    def script(visit: Visit, number: int, what: str) -> None:
        if what == "head":
            action(visit, number)

    return script


@contextlib.asynccontextmanager
async def through(
    script: Script,
    *,
    settings: Mapping[int, int] | None = None,
    options: str = HTTP2,
    routes: str = '- {match: {prefix: "/"}, route: {cluster: up}}',
    more: str = "",
    lines: Lines | None = None,
) -> AsyncIterator[tuple[H2Upstream, Server]]:
    """A scripted upstream, and a proxy before it."""
    async with h2_upstream(script, settings) as up:
        text = bootstrap(listener(routes, options=more), clusters=cluster(up.port, options=options))
        async with proxy(text, log=(lines or Lines()).log()) as server:
            yield up, server


def stats(server: Server, *names: str) -> list[object]:
    known = {one.name: one.value for one in server.measures.all()}
    return [known.get(f"cluster.up.{name}", 0) for name in names]


async def test_a_request_as_the_upstream_sees_it() -> None:
    async with through(echo) as (up, server):
        client = await Client.open(port_of(server))
        response = await client.get(
            "/a?b", b"te: trailers\r\nx-a: 1\r\nkeep-alive: 5\r\nconnection: keep-alive, x-b\r\nx-b: 2\r\n"
        )
        assert (response.status, response.body) == (200, b"/a?b 0")
        assert response.one("transfer-encoding") == "chunked"
        assert response.one("x-envoy-upstream-service-time") is not None
        head = up.visits[0].heads[1]
        assert {name: head[name] for name in head if name[:1] == b":"} == {
            b":method": b"GET",
            b":scheme": b"http",
            b":authority": b"a.test",
            b":path": b"/a?b",
        }
        assert head[b"x-a"] == b"1"
        assert not {b"host", b"connection", b"keep-alive", b"x-b", b"transfer-encoding"} & set(head)
        response = await client.post("/p", b"12345")
        assert response.body == b"/p 5"
        assert up.visits[0].heads[3][b"content-length"] == b"5"
        client.send(b"POST /c HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        assert (await client.response()).body == b"/c 3"
        assert b"content-length" not in up.visits[0].heads[5]
        client.close()
        assert len(up.visits) == 1
        names = ("upstream_cx_http2_total", "upstream_cx_total", "upstream_rq_total", "upstream_rq_200")
        assert stats(server, *names, "upstream_cx_http1_total", "upstream_cx_active") == [1, 1, 3, 3, 0, 1]


async def test_many_at_once_on_one_connection() -> None:
    """Answers come in another order than requests."""
    open_now: list[tuple[Visit, int]] = []

    def script(visit: Visit, number: int) -> None:
        open_now.append((visit, number))
        if len(open_now) == 20:
            for one in reversed(open_now):
                respond(*one, one[0].heads[one[1]][b":path"])

    async with through(on_head(script)) as (up, server):
        clients = [await Client.open(port_of(server)) for _ in range(20)]
        answers = await asyncio.gather(*(one.get(f"/{number}") for number, one in enumerate(clients)))
        assert [one.body for one in answers] == [b"/%d" % number for number in range(20)]
        assert len(up.visits) == 1
        for client in clients:
            client.close()


@pytest.mark.parametrize("size", [100_000, 3_000_000])
async def test_large_bodies(size: int) -> None:
    def script(visit: Visit, number: int, what: str) -> None:
        if what == "end":
            sender = Sender(visit, number, visit.bodies[number][::-1])
            sender.go_on()
            senders[visit] = sender
        elif visit in senders:
            senders[visit].go_on()

    senders: dict[Visit, Sender] = {}
    body = bytes(range(256)) * (size // 256)
    async with sending(script) as (_, server):
        client = await Client.open(port_of(server))
        client.LIMIT = 60
        assert (await client.post("/", body)).body == body[::-1]
        client.close()


class Sender:
    """Sends a body as the window lets it."""

    def __init__(self, visit: Visit, number: int, body: bytes) -> None:
        self.visit, self.number, self.left = visit, number, body
        visit.protocol.send_headers(number, [(":status", "200")])
        self.ended = False

    def go_on(self) -> None:
        protocol = self.visit.protocol
        while self.left and (window := protocol.local_flow_control_window(self.number)) > 0:
            piece = self.left[: min(window, protocol.max_outbound_frame_size)]
            self.left = self.left[len(piece) :]
            protocol.send_data(self.number, piece, end_stream=not self.left)
        self.visit.flush()


@contextlib.asynccontextmanager
async def sending(script: Script, options: str = HTTP2) -> AsyncIterator[tuple[H2Upstream, Server]]:
    """The same as `through`; scripts also hear of windows that grow, as `window`."""
    from h2 import events

    async with through(script, options=options) as (up, server):
        original = Visit._handle

        def handle(visit: Visit, event: events.Event) -> None:
            original(visit, event)
            if isinstance(event, events.WindowUpdated):
                script(visit, event.stream_id or 0, "window")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Visit, "_handle", handle)
            yield up, server


async def test_a_slow_client_holds_up_nobody_else() -> None:
    """What it does not take stays with the upstream, but for a window."""
    senders: dict[int, Sender] = {}
    size = 12_000_000

    def script(visit: Visit, number: int, what: str) -> None:
        if what == "head":
            if visit.heads[number][b":path"] == b"/large":
                senders[number] = Sender(visit, number, bytes(size))
            else:
                respond(visit, number)
        for sender in senders.values():
            sender.go_on()

    async with sending(script) as (up, server):
        slow = await Client.open(port_of(server))
        slow.LIMIT = 60
        slow.reader._limit = 1024  # type: ignore[attr-defined]
        slow.send(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")
        await asyncio.sleep(0.5)
        quick = await Client.open(port_of(server))
        for _ in range(5):
            assert (await quick.get("/small")).body == b"fine"
        assert len(up.visits) == 1
        (sender,) = senders.values()
        assert len(sender.left) > 2_000_000  # sockets hold some megabytes, the proxy a window
        slow.reader._limit = 1 << 22  # type: ignore[attr-defined]
        slow.LIMIT = 60.0  # for all of them
        response = await slow.response()
        assert (len(response.body), response.complete) == (size, True)
        slow.close()
        quick.close()


async def test_a_slow_upstream_holds_its_client_up() -> None:
    def script(visit: Visit, number: int, what: str) -> None:
        visit.reads = reads
        if what == "end":
            respond(visit, number, b"%d" % len(visit.bodies[number]))

    reads = False
    size = 8_000_000
    async with through(script) as (up, server):
        client = await Client.open(port_of(server))
        client.LIMIT = 60
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size)
        client.send(bytes(size))
        async with asyncio.timeout(Client.LIMIT):
            while not up.visits or len(up.visits[0].bodies.get(1, b"")) < 65535:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)  # for more of it, if there were any
        (visit,) = up.visits
        assert len(visit.bodies[1]) == 65535
        lanes = server.clusters["up"].http2
        assert lanes is not None
        ((lane,),) = lanes._lanes.values()
        (stream,) = lane.streams.values()
        assert stream.request._out_size < 1_000_000  # type: ignore[attr-defined]
        reads = True
        visit.protocol.acknowledge_received_data(65535, 1)
        visit.flush()
        assert (await client.response()).body == b"%d" % size
        client.close()


async def test_trailers_both_ways() -> None:
    seen: list[object] = []

    def script(visit: Visit, number: int, what: str) -> None:
        if what == "end":
            visit.protocol.send_headers(number, [(":status", "200")])
            visit.protocol.send_data(number, b"body")
            visit.protocol.send_headers(number, [("x-sum", "7")], end_stream=True)

    from h2 import events

    original = Visit._handle

    def handle(visit: Visit, event: events.Event) -> None:
        if isinstance(event, events.TrailersReceived):
            seen.append([(bytes(name), bytes(value)) for name, value in event.headers])
            script(visit, event.stream_id or 0, "end")
        original(visit, event)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Visit, "_handle", handle)
        async with through(lambda *_: None, more="http_protocol_options: {enable_trailers: true}") as (
            _,
            server,
        ):
            client = await Client.open(port_of(server))
            client.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
            client.send(b"3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n")
            response = await client.response()
            assert (response.body, response.trailers) == (b"body", [("x-sum", "7")])
            client.close()
    assert seen == [[(b"x-t", b"1")]]


async def test_responses_without_a_body() -> None:
    def script(visit: Visit, number: int) -> None:
        path = visit.heads[number][b":path"]
        protocol = visit.protocol
        if path == b"/interim":
            protocol.send_headers(number, [(":status", "103"), ("link", "x")])
            respond(visit, number, b"late")
        elif path == b"/empty":  # the end comes apart
            protocol.send_headers(number, [(":status", "200")])
            protocol.send_data(number, b"", end_stream=True)
        elif path == b"/head":
            respond(visit, number, b"", 200, ("content-length", "5"))
        else:
            respond(visit, number, b"", int(path[1:]))

    async with through(on_head(script)) as (up, server):
        client = await Client.open(port_of(server))
        for status in (200, 204, 304, 404):
            response = await client.get(f"/{status}")
            assert (response.status, response.body) == (status, b"")
        assert (await client.get("/empty")).body == b""
        assert (await client.get("/interim")).body == b"late"
        client.send(b"HEAD /head HTTP/1.1\r\nhost: a\r\n\r\n")
        response = await client.response(to_head=True)
        assert (response.status, response.one("content-length")) == (200, "5")
        client.close()
        assert len(up.visits) == 1


@pytest.mark.parametrize(
    "fields",
    [
        [(":status", "abc")],
        [(":status", "101")],
        [(":status", "20")],
        [(":status", "200"), ("content-length", "4"), ("content-length", "9")],
        [(":status", "200"), ("content-length", "x")],
        [(":status", "200"), ("x-a", "1\r\nx-b: 2")],
        [(":status", "200"), ("transfer-encoding", "chunked")],
    ],
)
async def test_a_head_that_is_none(fields: list[tuple[str, str]]) -> None:
    def script(visit: Visit, number: int) -> None:
        if visit.heads[number][b":path"] == b"/good":
            respond(visit, number)
            return
        visit.protocol.config.validate_outbound_headers = False
        visit.protocol.config.normalize_outbound_headers = False
        visit.protocol.send_headers(number, fields)
        with contextlib.suppress(Exception):  # the library keeps count of lengths
            visit.protocol.send_data(number, b"fine", end_stream=True)

    lines = Lines()
    async with through(on_head(script), lines=lines) as (_, server):
        client = await Client.open(port_of(server))
        response = await client.get()
        assert (response.status, response.body) == (502, NO_HEAD + b"protocol error")
        assert (await client.get("/good")).body == b"fine"
        client.close()
        assert stats(server, "upstream_rq_active") == [0]
    assert lines.errors() == []


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([(b":status", b"204"), (b"x-a", b"1")], (204, [(b"x-a", b"1")])),
        ([(b":status", b"103")], (103, [])),
        ([(b":status", b"101")], (0, [])),
        ([(b":status", b"2x0")], (0, [])),
        ([(b"x-a", b"1")], (0, [(b"x-a", b"1")])),
        ([(b":status", b"200"), (b"x-a", b"a\nb")], (0, [])),
        ([(b":status", b"200"), (b"content-length", b"4"), (b"content-length", b"5")], (0, [])),
        ([(b":status", b"200"), (b"content-length", b"-4")], (0, [])),
    ],
)
def test_heads_of_responses(lines: HeaderLines, wanted: tuple[int, HeaderLines]) -> None:
    assert response_fields(lines) == wanted


class Together:
    """Answers nobody until so many requests are there."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.busiest = 0
        """Most streams that were open on one connection."""
        self._held: list[tuple[Visit, int]] = []

    def __call__(self, visit: Visit, number: int) -> None:
        self._held.append((visit, number))
        self.busiest = max(self.busiest, sum(not one.closed for one in visit.protocol.streams.values()))
        if len(self._held) >= self.count:
            self.let_go()

    def __len__(self) -> int:
        return len(self._held)

    def let_go(self) -> None:
        """Answer those that are there, and from now on everybody."""
        held, self._held, self.count = self._held, [], 0
        for visit, number in held:
            respond(visit, number)


RETRY = '- {match: {prefix: "/"}, route: {cluster: up, retry_policy: {retry_on: refused-stream}}}'


@pytest.mark.parametrize(
    ("code", "text", "count"), [(0x8, b"remote reset", 1), (0x7, b"remote refused stream reset", 0)]
)
async def test_a_stream_that_is_reset(code: int, text: bytes, count: int) -> None:
    def script(visit: Visit, number: int) -> None:
        if visit.heads[number][b":path"] == b"/bad":
            visit.protocol.reset_stream(number, code)
        else:
            respond(visit, number)

    async with through(on_head(script)) as (up, server):
        client = await Client.open(port_of(server))
        response = await client.get("/bad")
        assert (response.status, response.body) == (503, NO_HEAD + text)
        assert (await client.get("/good")).body == b"fine"
        client.close()
        assert len(up.visits) == 1
        assert stats(server, "upstream_rq_rx_reset", "upstream_rq_active") == [count, 0]


async def test_a_stream_that_is_refused_may_be_sent_again() -> None:
    turns = iter([True, False])

    def script(visit: Visit, number: int) -> None:
        if next(turns):
            visit.protocol.reset_stream(number, 0x7)
        else:
            respond(visit, number)

    async with through(on_head(script), routes=RETRY) as (up, server):
        client = await Client.open(port_of(server))
        assert (await client.get()).body == b"fine"
        client.close()
        assert sorted(up.visits[0].heads) == [1, 3]


async def test_a_reset_within_the_response_cuts_it_off() -> None:
    def script(visit: Visit, number: int) -> None:
        visit.protocol.send_headers(number, [(":status", "200")])
        visit.protocol.send_data(number, b"half")
        visit.flush()
        asyncio.get_running_loop().call_later(0.1, reset, visit, number)

    def reset(visit: Visit, number: int) -> None:
        visit.protocol.reset_stream(number, 0x2)
        visit.flush()

    async with through(on_head(script)) as (_, server):
        client = await Client.open(port_of(server))
        response = await client.get()
        assert (response.status, response.body, response.complete) == (200, b"half", False)
        client.close()


async def test_an_answer_before_the_request_is_over() -> None:
    """The rest of the upload is called off, the connection stays."""

    def script(visit: Visit, number: int) -> None:
        visit.reads = False
        respond(visit, number, b"enough", 413) if visit.heads[number][b":method"] == b"POST" else respond(
            visit, number
        )

    async with through(on_head(script)) as (up, server):
        client = await Client.open(port_of(server))
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10000000\r\n\r\n" + bytes(100_000))
        response = await client.response()
        assert (response.status, response.body) == (413, b"enough")
        client.close()
        other = await Client.open(port_of(server))
        assert (await other.get()).body == b"fine"
        other.close()
        assert len(up.visits) == 1
        assert [number for number, _ in up.resets] == [1]


async def test_a_client_that_leaves() -> None:
    async with through(on_head(lambda visit, number: None)) as (up, server):
        client = await Client.open(port_of(server))
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        async with asyncio.timeout(20):
            while not up.visits or not up.visits[0].heads:
                await asyncio.sleep(0.01)
            client.abort()
            while not up.resets:
                await asyncio.sleep(0.01)
        assert up.resets == [(1, 8)]
        await settled(server)
        assert stats(server, "upstream_rq_active", "upstream_cx_active", "upstream_rq_tx_reset") == [0, 1, 1]


async def test_going_away() -> None:
    """What was begun ends, what was not looked at may be sent again, and nothing new comes."""
    held: list[int] = []

    def script(visit: Visit, number: int) -> None:
        path = visit.heads[number][b":path"]
        if path == b"/held":
            held.append(number)
        elif path == b"/away" and len(up.visits) == 1:
            visit.go_away(held[0])
        else:
            respond(visit, number, b"%d" % len(up.visits))

    async with through(on_head(script), routes=RETRY) as (up, server):
        first, second = await Client.open(port_of(server)), await Client.open(port_of(server))
        first.send(b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n")
        async with asyncio.timeout(20):
            while not held:
                await asyncio.sleep(0.01)
        assert (await second.get("/away")).body == b"2"
        assert (await second.get("/next")).body == b"2"
        old = up.visits[0]
        assert not old.closed.is_set()
        respond(old, held[0])
        assert (await first.response()).body == b"fine"
        async with asyncio.timeout(20):
            await old.closed.wait()
        assert len(up.visits) == 2
        first.close()
        second.close()


@pytest.mark.parametrize(
    ("most", "connections"), [("", 3), ("max_connections: 1", 1), ("max_connections: 2", 2)]
)
async def test_no_more_streams_than_the_upstream_takes(most: str, connections: int) -> None:
    """More connections, or waiting where there may be no more."""
    together = Together(2 * connections)
    options = HTTP2 + (f"\ncircuit_breakers: {{thresholds: [{{{most}}}]}}" if most else "")
    settings: dict[int, int] = {SettingCodes.MAX_CONCURRENT_STREAMS: 2}
    async with through(on_head(together), settings=settings, options=options) as (up, server):
        clients = [await Client.open(port_of(server)) for _ in range(6)]
        answers = await asyncio.gather(*(client.get() for client in clients))
        assert [one.body for one in answers] == [b"fine"] * 6
        assert len(up.visits) == connections
        assert together.busiest == 2
        assert stats(server, "upstream_cx_overflow")[0] == (0 if not most else 6 - 2 * connections)
        for client in clients:
            client.close()


async def test_our_own_limit_of_streams() -> None:
    options = "http2_protocol_options: {max_concurrent_streams: 1}"
    async with through(on_head(Together(3)), options=options) as (up, server):
        clients = [await Client.open(port_of(server)) for _ in range(3)]
        answers = await asyncio.gather(*(client.get() for client in clients))
        assert [one.status for one in answers] == [200] * 3
        assert len(up.visits) == 3
        for client in clients:
            client.close()


@pytest.mark.parametrize("limit", ["max_requests: 2", "max_connections: 1, max_pending_requests: 1"])
async def test_what_is_too_much_is_not_tried(limit: str) -> None:
    options = "http2_protocol_options: {max_concurrent_streams: 2}"
    options += f"\ncircuit_breakers: {{thresholds: [{{{limit}}}]}}"
    refused = 3 if "max_requests" in limit else 2
    together = Together(1)
    async with through(on_head(together), options=options) as (_, server):
        first = await Client.open(port_of(server))
        await first.get()
        together.count = 100
        clients = [await Client.open(port_of(server)) for _ in range(5)]
        tasks = [asyncio.create_task(client.get()) for client in clients]
        async with asyncio.timeout(Client.LIMIT):
            while len(together) < 2 or sum(task.done() for task in tasks) < refused:
                await asyncio.sleep(0.01)
        together.let_go()
        bad = [one for one in await asyncio.gather(*tasks) if one.status == 503]
        assert len(bad) == refused
        assert {one.body for one in bad} == {NO_HEAD + b"overflow"}
        for client in (first, *clients):
            client.close()


async def test_nobody_there() -> None:
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        text = bootstrap(listener(), clusters=cluster(dead.getsockname()[1], options=HTTP2))
        async with proxy(text) as server:
            client = await Client.open(port_of(server))
            response = await client.get()
            assert (response.status, response.body) == (503, NO_HEAD + b"remote connection failure")
            client.close()
            names = ("upstream_cx_connect_fail", "upstream_rq_pending_failure_eject", "upstream_rq_total")
            assert stats(server, *names, "upstream_rq_pending_active") == [1, 1, 0, 0]


async def test_a_connection_that_breaks_or_speaks_otherwise() -> None:
    def script(visit: Visit, number: int) -> None:
        if visit.heads[number][b":path"] == b"/drop":
            visit.transport.abort()
        elif visit.heads[number][b":path"] == b"/garbage":
            visit.flush()
            visit.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        else:
            respond(visit, number)

    async with through(on_head(script)) as (up, server):
        client = await Client.open(port_of(server))
        assert (await client.get("/drop")).body == NO_HEAD + b"connection termination"
        assert (await client.get("/garbage")).body == NO_HEAD + b"protocol error"
        assert (await client.get("/fine")).body == b"fine"
        client.close()
        assert len(up.visits) == 3
        assert stats(server, "upstream_cx_protocol_error", "upstream_cx_active") == [1, 1]
    async with upstream(hello) as http1:
        text = bootstrap(listener(), clusters=cluster(http1.port, options=HTTP2))
        async with proxy(text) as server:
            client = await Client.open(port_of(server))
            assert (await client.get()).body == NO_HEAD + b"protocol error"
            client.close()


async def test_time() -> None:
    """A route's time ends a stream; a connection that nobody uses ends by itself."""
    options = HTTP2 + "\ncommon_http_protocol_options: {idle_timeout: 0.2s}"
    route = '- {match: {prefix: "/"}, route: {cluster: up, timeout: 0.1s}}'
    async with through(on_head(lambda *_: None), options=options, routes=route) as (up, server):
        client = await Client.open(port_of(server))
        assert (await client.get()).status == 504
        client.close()
        async with asyncio.timeout(20):
            await up.visits[0].closed.wait()
        assert up.resets == [(1, 8)]
        assert stats(server, "upstream_cx_idle_timeout", "upstream_rq_timeout") == [1, 1]


async def test_upgrades_cannot_be_asked_for() -> None:
    async with through(echo, more="upgrade_configs: [{upgrade_type: websocket}]") as (up, server):
        client = await Client.open(port_of(server))
        response = await client.get("/", b"connection: upgrade\r\nupgrade: websocket\r\n")
        assert (response.status, response.body) == (502, NO_HEAD + b"protocol error")
        client.close()
        assert up.visits == []


async def test_calls_of_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    guest: Scripted = asking(monkeypatch, method="POST", body=b"12345")
    routes = '- {match: {prefix: "/"}, direct_response: {status: 200}}'
    async with h2_upstream(echo) as up:
        text = bootstrap(listener(routes, filters=guest.config()), clusters=cluster(up.port, options=HTTP2))
        async with proxy(text, log=guest.log()) as server:
            client = await Client.open(port_of(server))
            assert (await client.get()).body.startswith(b"200 ")
            client.close()
            assert up.visits[0].heads[1][b":authority"] == b"call.test"


@pytest.mark.openssl
async def test_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.certificate, pair.key)
    tls.set_alpn_protocols(["http/1.1", "h2"])
    context = trusted(authority).partition(", ")[2]
    async with h2_upstream(echo, tls=tls) as up:
        options = HTTP2 + "\n" + tls_socket("Upstream", context)
        async with proxy(bootstrap(listener(), clusters=cluster(up.port, options=options))) as server:
            client = await Client.open(port_of(server))
            assert (await client.get("/s")).body == b"/s 0"
            client.close()
            session = up.visits[0].transport.get_extra_info("ssl_object")
            assert session.selected_alpn_protocol() == "h2"


# --- beside the real Envoy ------------------------------------------------------------------------------


@pytest.mark.envoy
async def test_like_the_real_envoy(tmp_path: Path) -> None:
    """The same requests through both: what the upstream sees, what clients get, what the log says."""

    def script(visit: Visit, number: int, what: str) -> None:
        path = visit.heads[number][b":path"]
        if what == "head" and path.startswith(b"/reset"):
            visit.protocol.reset_stream(number, int(path[6:]))
        elif what == "head" and path == b"/drop":
            visit.transport.abort()
        else:
            echo(visit, number, what)

    paths = ("/a?b=c", "/reset2", "/reset7", "/reset8", "/drop", "/last")
    seen: dict[str, list[object]] = {}
    for which in PROXIES:
        async with h2_upstream(script) as up:
            route = '- {match: {prefix: "/"}, route: {cluster: up}}'
            async with beside(which, tmp_path, route, cluster(up.port, options=HTTP2)) as one:
                answers = [await one.get(path) for path in paths]
                client = await Client.open(one.port)
                posted = await client.post("/p", b"123", b"te: trailers, deflate\r\nx-a: 1\r\n")
                client.close()
                lines = await one.logged(len(paths) + 1)
                pattern = "cluster.up.upstream_(rq_total|rq_rx_reset|cx_http2_total|cx_total|rq_200)"
                numbers = await one.stats(pattern)
            heads = [
                sorted((n, v) for n, v in head.items() if n not in (b"x-request-id",))
                for visit in up.visits
                for head in visit.heads.values()
            ]
            seen[which] = [answers, posted.body, heads, [line[:3] for line in lines], numbers]
    for theirs, ours in zip(seen["envoy"], seen["ours"], strict=True):
        assert ours == theirs


@pytest.mark.envoy
async def test_the_real_envoy_as_the_upstream(tmp_path: Path) -> None:
    routes = """
- {match: {prefix: "/large"}, direct_response: {status: 200, body: {inline_string: "BODY"}}}
- {match: {prefix: "/"}, direct_response: {status: 201, body: {inline_string: "fine"}}}
"""
    large = "x" * 4000
    async with beside("envoy", tmp_path, routes.replace("BODY", large), "", codec="HTTP2") as envoy:
        text = bootstrap(listener(), clusters=cluster(envoy.port, options=HTTP2))
        async with proxy(text) as server:
            clients = [await Client.open(port_of(server)) for _ in range(10)]
            for _ in range(3):
                answers = await asyncio.gather(*(client.get("/large") for client in clients))
                assert {one.body for one in answers} == {large.encode()}
            assert (await clients[0].post("/", b"y" * 200_000)).status == 201
            for client in clients:
                client.close()
            assert stats(server, "upstream_cx_total", "upstream_rq_total") == [1, 31]


# --- all at once ----------------------------------------------------------------------------------------


class Unreliable:
    """Answers late, in pieces, not at all; resets, goes away, breaks off. By a seed of its own."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def __call__(self, visit: Visit, number: int) -> None:
        turn = self.random.random()
        asyncio.get_running_loop().call_later(self.random.random() * 0.02, self._act, visit, number, turn)

    def _act(self, visit: Visit, number: int, turn: float) -> None:
        if visit.transport.is_closing() or visit.protocol.streams[number].closed:
            return  # the client was quicker
        if turn < 0.06:
            visit.protocol.reset_stream(number, self.random.choice([2, 7, 8]))
        elif turn < 0.08:
            visit.transport.abort()
        elif turn < 0.1:
            visit.go_away(number)
            respond(visit, number)
        elif turn < 0.3:
            visit.protocol.send_headers(number, [(":status", "200")])
            visit.protocol.send_data(number, b"first")
            asyncio.get_running_loop().call_later(0.01, self._act, visit, number, 2)
        elif turn < 1:
            respond(visit, number)
        else:
            visit.protocol.send_data(number, b"last", end_stream=True)
        visit.flush()


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_is_left_over(seed: int) -> None:
    """Whatever happens, each client gets one answer or its connection ends; and all is given back."""
    chance = random.Random(seed)
    seen: set[object] = set()
    options = HTTP2 + "\ncircuit_breakers: {thresholds: [{max_connections: 4}]}"
    settings: dict[int, int] = {SettingCodes.MAX_CONCURRENT_STREAMS: 4}
    script = on_head(Unreliable(seed))
    lines = Lines()
    async with through(script, settings=settings, options=options, lines=lines) as (_, server):

        async def visitor() -> None:
            for _ in range(15):
                client = await Client.open(port_of(server))
                if chance.random() < 0.1:
                    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                    await asyncio.sleep(chance.random() * 0.02)
                    client.abort()
                    continue
                body = bytes(chance.randrange(100_000)) if chance.random() < 0.4 else b""
                response = await client.post("/", body) if body else await client.get()
                seen.add((response.status, response.complete))
                client.close()

        await asyncio.gather(*(visitor() for _ in range(20)))
        await settled(server)
        up = server.clusters["up"]
        lanes = up.http2
        assert lanes is not None
        assert (up.active, up.connecting, up.pending, len(lanes._waiting)) == (0, 0, 0, 0)
        assert [one.active for one in up.hosts.hosts] == [0]
        for lane in (lane for lanes in lanes._lanes.values() for lane in lanes):
            assert (lane.streams, lane.waiting, lane._ended, lane._ended_there) == ({}, [], set(), set())
    assert seen <= {(200, True), (200, False), (503, True)}
    assert {(200, True), (503, True)} <= seen
    assert lines.errors() == []
