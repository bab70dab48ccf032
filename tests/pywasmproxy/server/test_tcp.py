"""TCP listeners on real sockets: bytes both ways, half-closes, breaks, pressure, many at once, the end."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import cache

import pytest

from pywasmproxy.config.model_clusters import CircuitBreaker
from pywasmproxy.sansio.tcp import TcpStream
from pywasmproxy.server import tcp
from pywasmproxy.server.proxy import Server
from tests.pywasmproxy.server.support import (
    Client,
    Lines,
    bootstrap,
    cluster,
    hello,
    listener,
    port_of,
    proxy,
)
from tests.pywasmproxy.server.support import upstream as http_upstream
from tests.support.wat import wat

LIMIT = 10.0
LISTENER = """
  - name: {name}
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    per_connection_buffer_limit_bytes: {buffer}
    filter_chains:
    - filters:
{filters}
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: test
          {options}
"""
FILTER = """
      - name: envoy.filters.network.wasm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm
          config:
            name: "{name}"
            {more}
            vm_config: {{runtime: envoy.wasm.runtime.v8, code: {{local: {{inline_bytes: "{code}"}}}}}}
"""
SHELL = """
(module
  (import "env" "proxy_set_buffer_bytes" (func $set (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_tick_period_milliseconds" (func $period (param i32) (result i32)))
  (import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
  (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
  (import "env" "proxy_close_stream" (func $close (param i32) (result i32)))
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "down:up:closed by 0")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024))
  (global $id (mut i32) (i32.const 0))
  %s
)
"""
GUESTS = {
    "pass": """(func (export "proxy_on_downstream_data") (param i32 i32 i32) (result i32) (i32.const 0))
        (func (export "proxy_on_upstream_data") (param i32 i32 i32) (result i32) (i32.const 0))""",
    # Puts `down:` and `up:` in front of what comes.
    "mark": """(func (export "proxy_on_downstream_data") (param i32 i32 i32) (result i32)
          (call $set (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 16) (i32.const 5)))
        (func (export "proxy_on_upstream_data") (param i32 i32 i32) (result i32)
          (call $set (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 21) (i32.const 3)))""",
    # Keeps the client's bytes until the last one has come.
    "collect": """(func (export "proxy_on_downstream_data") (param i32 i32) (param $end i32) (result i32)
          (i32.eqz (local.get $end)))""",
    "hold": '(func (export "proxy_on_downstream_data") (param i32 i32 i32) (result i32) (i32.const 1))',
    "never": '(func (export "proxy_on_new_connection") (param i32) (result i32) (i32.const 1))',
    # Lets the connection begin in a tick.
    "wait": """(func (export "proxy_on_new_connection") (param $c i32) (result i32)
          (global.set $id (local.get $c))
          (drop (call $period (i32.const 20))) (i32.const 1))
        (func (export "proxy_on_tick") (param i32)
          (drop (call $period (i32.const 0)))
          (drop (call $effective (global.get $id)))
          (drop (call $continue (i32.const 2))))""",
    "close": """(func (export "proxy_on_upstream_data") (param i32 i32 i32) (result i32)
          (drop (call $close (i32.const 2))) (i32.const 0))""",
    "trap": '(func (export "proxy_on_downstream_data") (param i32 i32 i32) (result i32) (unreachable))',
    # Logs who closed.
    "end": """(func (export "proxy_on_downstream_connection_close") (param i32) (param $peer i32)
          (i32.store8 (i32.const 34) (i32.add (i32.const 48) (local.get $peer)))
          (drop (call $log (i32.const 2) (i32.const 24) (i32.const 11))))""",
}


@cache
def guest(name: str) -> str:
    return base64.b64encode(wat(SHELL % GUESTS[name])).decode()


def tcp_listener(
    *filters: str, name: str = "main", options: str = "cluster: up", buffer: int = 1 << 20, more: str = ""
) -> str:
    made = "".join(FILTER.format(name=one, code=guest(one), more=more) for one in filters)
    return LISTENER.format(name=name, filters=made, options=options, buffer=buffer)


class Far:
    """An upstream that gives out its connections."""

    def __init__(self) -> None:
        self.connections: asyncio.Queue[Peer] = asyncio.Queue()
        self.all: list[Peer] = []
        self.port = 0
        self.echoes = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.all.append(peer)
        self.connections.put_nowait(peer)
        if self.echoes:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(1 << 16):
                    writer.write(data)
                    await writer.drain()
                writer.write_eof()

    async def next(self) -> Peer:
        async with asyncio.timeout(LIMIT):
            return await self.connections.get()


class Peer:
    """One end of a connection. Every wait is bounded: a hang is a failure."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, server: Server, name: str = "main") -> Peer:
        return cls(*await asyncio.open_connection("127.0.0.1", port_of(server, name)))

    def send(self, data: bytes, *, end: bool = False) -> None:
        self.writer.write(data)
        if end:
            self.writer.write_eof()

    async def gets(self, data: bytes) -> bool:
        async with asyncio.timeout(LIMIT):
            return await self.reader.readexactly(len(data)) == data

    async def rest(self) -> bytes:
        """Everything until the other side ends; ConnectionError when it breaks."""
        async with asyncio.timeout(LIMIT):
            return await self.reader.read()

    async def broken(self) -> bool:
        try:
            await self.rest()
        except ConnectionError:
            return True
        return False

    def reset(self) -> None:
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()


@contextlib.asynccontextmanager
async def far() -> AsyncIterator[Far]:
    one = Far()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0, backlog=1024)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        for peer in one.all:
            peer.writer.transport.abort()


@contextlib.asynccontextmanager
async def running(
    *filters: str,
    options: str = "cluster: up",
    lines: Lines | None = None,
    more: str = "",
    buffer: int = 1 << 20,
) -> AsyncIterator[tuple[Server, Far]]:
    """A proxy with one TCP listener, and its upstream."""
    async with far() as up:
        text = bootstrap(
            tcp_listener(*filters, options=options, more=more, buffer=buffer), clusters=cluster(up.port)
        )
        async with proxy(text, log=(lines or Lines()).log()) as server:
            yield server, up
            for peer in up.all:
                peer.writer.transport.abort()
        assert all(one.tcp_connections == 0 for one in server.clusters.values())


@pytest.mark.parametrize("filters", [(), ("pass",), ("pass", "pass")])
async def test_bytes_both_ways_and_half_closes(filters: tuple[str, ...]) -> None:
    async with running(*filters) as (server, up):
        client = await Peer.connect(server)
        other = await up.next()
        client.send(b"hello")
        assert await other.gets(b"hello")
        other.send(b"world")
        assert await client.gets(b"world")
        client.send(b"last", end=True)
        assert await other.rest() == b"last"
        other.send(b"still here")
        assert await client.gets(b"still here")
        other.send(b"bye", end=True)
        assert await client.rest() == b"bye"


async def test_the_upstream_ends_first() -> None:
    async with running("end", lines=(lines := Lines())) as (server, up):
        client = await Peer.connect(server)
        other = await up.next()
        other.send(b"banner", end=True)
        assert await client.rest() == b"banner"
        client.send(b"quit", end=True)
        assert await other.rest() == b"quit"
    assert "wasm log end: closed by 2" in lines


async def test_filters_change_what_goes_through() -> None:
    async with running("mark") as (server, up):
        client = await Peer.connect(server)
        other = await up.next()
        client.send(b"a")
        assert await other.gets(b"down:a")
        other.send(b"b")
        assert await client.gets(b"up:b")
        client.close()


async def test_a_filter_collects_a_message() -> None:
    async with running("collect") as (server, up):
        client = await Peer.connect(server)
        other = await up.next()
        for part in (b"one ", b"two ", b"three"):
            client.send(part)
            await asyncio.sleep(0.02)
        client.send(b"", end=True)
        assert await other.rest() == b"one two three"
        other.send(b"", end=True)
        assert await client.rest() == b""


async def test_a_connection_begins_when_a_tick_lets_it() -> None:
    async with running("wait") as (server, up):
        client = await Peer.connect(server)
        client.send(b"hello")
        other = await up.next()
        assert await other.gets(b"hello")
        client.close()


async def test_a_filter_closes() -> None:
    async with running("end", "close", lines=(lines := Lines())) as (server, up):
        client = await Peer.connect(server)
        other = await up.next()
        other.send(b"never seen")
        assert await client.rest() == b""
        assert await other.rest() == b""
    assert "wasm log end: closed by 1" in lines


# --- many and much ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("filters", [(), ("pass",)])
async def test_megabytes_both_ways_at_once(filters: tuple[str, ...]) -> None:
    block, count = bytes(range(256)) * 256, 128  # 8 MiB

    async def pour(peer: Peer) -> None:
        for number in range(count):
            peer.writer.write(block[number:] + block[:number])
            await peer.writer.drain()
        peer.writer.write_eof()

    async def taste(peer: Peer) -> str:
        found = hashlib.sha256()
        while data := await peer.reader.read(1 << 16):
            found.update(data)
        return found.hexdigest()

    expected = hashlib.sha256(b"".join(block[n:] + block[:n] for n in range(count))).hexdigest()
    async with running(*filters) as (server, up):
        client = await Peer.connect(server)
        other = await up.next()
        async with asyncio.timeout(60):
            _, _, there, back = await asyncio.gather(pour(client), pour(other), taste(other), taste(client))
        assert there == back == expected


@pytest.mark.parametrize("filters", [(), ("pass",)])
async def test_two_hundred_connections(filters: tuple[str, ...]) -> None:
    async with running(*filters) as (server, up):
        up.echoes = True

        async def visit(number: int) -> bool:
            client = await Peer.connect(server)
            message = b"%d;" % number * 2000
            for start in range(0, len(message), 3000):
                client.send(message[start : start + 3000])
                await asyncio.sleep(0)
            client.writer.write_eof()
            try:
                return await client.rest() == message
            finally:
                client.close()

        async with asyncio.timeout(60):
            assert all(await asyncio.gather(*(visit(number) for number in range(200))))
        assert len(up.all) == 200


async def small_client(server: Server) -> socket.socket:
    """A client that takes little at a time, and only when it is asked to."""
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    small.setblocking(False)
    await asyncio.get_running_loop().sock_connect(small, ("127.0.0.1", port_of(server)))
    return small


async def test_a_slow_reader_slows_the_sender() -> None:
    async with running() as (server, up):
        small = await small_client(server)
        other = await up.next()
        total = 64 << 20
        loop, sent = asyncio.get_running_loop(), 0
        with contextlib.suppress(TimeoutError):
            while sent < total:
                other.writer.write(bytes(1 << 16))
                sent += 1 << 16
                await asyncio.wait_for(other.writer.drain(), 1)
        assert sent < total  # it had to wait
        other.writer.write_eof()
        received = 0
        async with asyncio.timeout(60):
            while data := await loop.sock_recv(small, 1 << 20):
                received += len(data)
        assert received == sent
        small.close()


async def test_a_filter_that_holds_everything_stops_the_client() -> None:
    async with running("hold", buffer=100_000) as (server, up):
        client = await Peer.connect(server)
        other = await up.next()
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 64 << 20:
                client.writer.write(bytes(1 << 16))
                sent += 1 << 16
                await asyncio.wait_for(client.writer.drain(), 1)
        assert sent < 64 << 20
        other.reset()  # as in Envoy, nobody would notice the client's going before it is read again
        assert await client.broken()


# --- when things go wrong ---------------------------------------------------------------------------------


async def test_resets_are_passed_on() -> None:
    async with running("end", lines=(lines := Lines())) as (server, up):
        client = await Peer.connect(server)
        other = await up.next()
        other.send(b"x")
        assert await client.gets(b"x")
        other.reset()
        assert await client.broken()
        client = await Peer.connect(server)
        other = await up.next()
        client.send(b"y")
        assert await other.gets(b"y")
        client.reset()
        assert await other.broken()
    said = [line.rpartition(": ")[2].strip() for line in lines.text if "closed by" in line]
    assert said == ["closed by 1", "closed by 2"]


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_an_upstream_that_refuses() -> None:
    lines = Lines()
    text = bootstrap(tcp_listener("end"), clusters=cluster(closed_port()))
    async with proxy(text, log=lines.log()) as server:
        client = await Peer.connect(server)
        assert await client.rest() == b""
    assert "wasm log end: closed by 1" in lines
    assert "cannot connect to 127.0.0.1:" in lines


async def test_the_next_host_is_tried() -> None:
    async with far() as up:
        options = "cluster: up\n          max_connect_attempts: 2"
        text = bootstrap(tcp_listener(options=options), clusters=cluster(closed_port(), up.port))
        async with proxy(text) as server:
            for _ in range(2):  # whoever's turn it is
                client = await Peer.connect(server)
                client.send(b"x", end=True)
                other = await up.next()
                assert await other.rest() == b"x"
                other.close()
                assert await client.rest() == b""


async def test_an_upstream_that_does_not_answer() -> None:
    # A listening socket whose queue is full: the kernel answers no further connection.
    with socket.socket() as full, contextlib.ExitStack() as visitors:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            visitor = visitors.enter_context(socket.socket())
            visitor.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                visitor.connect(full.getsockname())
        text = bootstrap(tcp_listener(), clusters=cluster(full.getsockname()[1], connect_timeout="0.2s"))
        async with proxy(text) as server:
            client = await Peer.connect(server)
            assert await client.rest() == b""
            leaver = await Peer.connect(server)
            leaver.reset()


async def test_clusters_without_hosts_and_without_being() -> None:
    text = bootstrap(
        tcp_listener(options="cluster: empty"),
        tcp_listener(options="cluster: nope", name="nope"),
        clusters="\n  - {name: empty, type: STATIC}",
    )
    async with proxy(text) as server:
        for name in ("main", "nope"):
            assert await (await Peer.connect(server, name)).rest() == b""
    async with running() as (server, up):
        breaker = replace(server.clusters["up"].config, circuit_breaker=CircuitBreaker(max_connections=1))
        server.clusters["up"].config = breaker
        first = await Peer.connect(server)
        await up.next()
        assert await (await Peer.connect(server)).rest() == b""
        first.close()
        (await up.next() if not up.all else up.all[0]).close()
        assert await first.rest() == b""


async def test_idle_connections_end() -> None:
    async with running(
        "end", options="cluster: up\n          idle_timeout: 0.3s", lines=(lines := Lines())
    ) as (server, up):
        client = await Peer.connect(server)
        other = await up.next()
        for _ in range(3):
            await asyncio.sleep(0.15)
            other.send(b"x")
            assert await client.gets(b"x")
        assert await client.rest() == b""
        assert await other.rest() == b""
    assert "wasm log end: closed by 1" in lines


async def test_a_connection_that_never_begins_is_idle_too() -> None:
    # In Envoy such a connection stays for ever, whatever its client does.
    async with running("never", options="cluster: up\n          idle_timeout: 0.2s") as (server, up):
        client = await Peer.connect(server)
        assert await client.rest() == b""
        assert not up.all


@pytest.mark.parametrize(
    ("policy", "now", "later"),
    [
        ("failure_policy: FAIL_CLOSED", False, False),
        ("failure_policy: FAIL_OPEN", False, True),
        ("fail_open: true", True, True),
    ],
)
async def test_a_trap(policy: str, now: bool, later: bool) -> None:
    async with running("trap", more=policy) as (server, up):
        up.echoes = True
        for works in (now, later):
            client = await Peer.connect(server)
            with contextlib.suppress(OSError):  # it is closed while we are sending
                client.send(b"x", end=True)
                assert await client.rest() == (b"x" if works else b"")
            client.close()


async def test_a_fault_of_ours_costs_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Lines()
    async with running(lines=lines) as (server, up):
        up.echoes = True
        original = TcpStream.feed

        def broken(self: TcpStream, event: object) -> object:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(TcpStream, "feed", broken)
        client = await Peer.connect(server)
        with contextlib.suppress(ConnectionError):
            assert await client.rest() == b""
        monkeypatch.setattr(TcpStream, "feed", original)
        client = await Peer.connect(server)
        client.send(b"x", end=True)
        assert await client.rest() == b"x"
        client.close()
    assert "ZeroDivisionError: a bug" in lines


async def test_what_nobody_takes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "FLUSH_LIMIT", 0.2)
    async with running(options="cluster: up\n          idle_timeout: 0.3s") as (server, up):
        small = await small_client(server)
        other = await up.next()
        with contextlib.suppress(TimeoutError, ConnectionError):
            while True:
                other.writer.write(bytes(1 << 16))
                await asyncio.wait_for(other.writer.drain(), 1)
        async with asyncio.timeout(LIMIT):
            while server.connections:
                await asyncio.sleep(0.02)
        small.close()


# --- beside others, and the end ---------------------------------------------------------------------------


async def test_http_and_tcp_side_by_side() -> None:
    async with http_upstream(hello) as web, far() as up:
        up.echoes = True
        text = bootstrap(
            listener(name="web", routes='- {match: {prefix: "/"}, route: {cluster: web}}'),
            tcp_listener("mark"),
            clusters=cluster(up.port) + cluster(web.port, name="web"),
        )
        async with proxy(text) as server:
            browser = await Client.open(port_of(server, "web"))
            assert (await browser.get()).body == b"Hello World!"
            client = await Peer.connect(server)
            client.send(b"x")
            assert await client.gets(b"up:down:x")
            assert server.streams == 1
            assert " connections=2 streams=1 upstream_connections=2" in server.status()
            browser.close()
            client.close()


async def test_http_through_a_tcp_listener() -> None:
    async with http_upstream(hello) as web:
        text = bootstrap(tcp_listener("pass"), clusters=cluster(web.port))
        async with proxy(text) as server:
            client = await Client.open(port_of(server))
            assert (await client.get()).body == b"Hello World!"
            client.close()


async def test_shutting_down() -> None:
    lines = Lines()
    async with far() as up:
        up.echoes = True
        text = bootstrap(tcp_listener("end"), clusters=cluster(up.port))
        async with proxy(text, log=lines.log()) as server:
            client = await Peer.connect(server)
            client.send(b"x")
            assert await client.gets(b"x")
            stopping = asyncio.create_task(server.stop(0.3))
            await asyncio.sleep(0.05)
            client.send(b"still served")
            assert await client.gets(b"still served")
            with pytest.raises(ConnectionError):
                await Peer.connect(server)
            async with asyncio.timeout(LIMIT):
                await stopping
            with contextlib.suppress(ConnectionError):
                assert await client.rest() == b""
    assert "wasm log end: closed by 1" in lines
    assert "1 connections cut off" in lines
    assert not lines.errors()
