"""HTTP calls of guests on real sockets: answers, failures, time, and who is gone meanwhile."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from pywasmproxy.server import callouts, http_call
from pywasmproxy.server.plugin_starts import StartError
from pywasmproxy.server.proxy import Proxy
from tests.pywasmproxy.server.scripted import ANSWERED, REQUEST, Scripted
from tests.pywasmproxy.server.support import (
    Client,
    Visit,
    answer,
    bootstrap,
    cluster,
    hello,
    listener,
    port_of,
    proxy,
    settled,
    upstream,
)

DIRECT = '- {match: {prefix: "/"}, direct_response: {status: 200, body: {inline_string: main}}}'
RESET = b"upstream connect error or disconnect/reset before headers. reset reason: "


def asking(monkeypatch: pytest.MonkeyPatch, **call: Any) -> Scripted:
    """A guest that makes a call per request, and answers the client with what came."""
    guest = Scripted(monkeypatch)
    streams: dict[int, int] = {}

    def request(context: int, *_: int) -> None:
        streams[guest.http_call(**call)] = context
        guest.pause()

    def answered(root: int, token: int, *counts: int) -> None:
        status, body = guest.answer()
        text = b"%b %d %b %r" % (status.encode(), counts[0], body, guest.result())
        guest.reply(streams.pop(token), 200, text)

    guest.on(REQUEST, request)
    guest.on(ANSWERED, answered)
    return guest


def config(guest: Scripted, *clusters: str, more: str = "", node: str = "") -> str:
    return bootstrap(listener(DIRECT, filters=guest.config(more=more)), clusters="".join(clusters), node=node)


async def one_call(guest: Scripted, text: str, handler: Any = hello) -> bytes:
    """What a client gets whose request waits for the call."""
    async with upstream(handler) as up, proxy(text.replace("PORT", str(up.port)), log=guest.log()) as server:
        client = await Client.open(port_of(server))
        response = await client.get()
        client.close()
        await settled(server)
        assert not len(server.filters.call_outs)
        assert server.filters.call_outs.collected == 0
        assert response.status == 200
        return response.body


def up(connect_timeout: str = "1s", options: str = "") -> str:
    return cluster(0, connect_timeout=connect_timeout, options=options).replace(
        "port_value: 0", "port_value: PORT"
    )


async def test_a_response(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = asking(monkeypatch)
    assert await one_call(guest, config(guest, up())) == b"200 3 Hello World! (0, b'')"


async def test_a_bare_response_and_one_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(visit: Visit) -> None:
        await visit.request()
        visit.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
        await visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\nkeep-alive: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await asyncio.sleep(0.05)
        visit.send(b"2\r\nde\r\n0\r\nx-t: 1\r\n\r\n")

    guest = asking(monkeypatch)
    async with upstream(handler) as one, proxy(config(guest, cluster(one.port)), log=guest.log()) as server:
        client = await Client.open(port_of(server))
        assert (await client.get()).body == b"204 2  (0, b'')"
        assert (await client.get()).body == b"200 3 abcde (0, b'')"
        assert one.visits == 1  # the pool's connection was used again
        client.close()
    assert [counts[3] for counts in guest.entered_with(ANSWERED)] == [0, 0]  # no trailers: not enabled


async def test_trailers_where_the_cluster_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(visit: Visit) -> None:
        await visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n")

    guest = asking(monkeypatch, trailers=[(b"x-sent", b"2")])
    options = "http_protocol_options: {enable_trailers: true}"
    async with upstream(handler) as one:
        text = config(guest, cluster(one.port, options=options))
        async with proxy(text, log=guest.log()) as server:
            client = await Client.open(port_of(server))
            assert (await client.get()).body == b"200 3 abc (0, b'')"
            client.close()
        assert one.trailers == [b"x-sent: 2\r\n\r\n"]
    assert guest.entered_with(ANSWERED)[0][3] == 1


async def test_a_head_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(visit: Visit) -> None:
        while True:
            await visit.request()
            visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")

    guest = asking(monkeypatch, method="HEAD")
    assert await one_call(guest, config(guest, up()), handler) == b"200 3  (0, b'')"


async def test_trailers_where_they_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = asking(monkeypatch, trailers=[(b"x-t", b"1")], timeout=0)
    async with upstream(hello) as one, proxy(config(guest, cluster(one.port)), log=guest.log()) as server:
        client = await Client.open(port_of(server))
        assert (await client.get()).body == b"200 3 Hello World! (0, b'')"
        client.close()
    assert one.heads == [b"GET /call HTTP/1.1\r\nhost: call.test\r\nx-envoy-internal: true\r\n\r\n"]


async def test_what_upstream_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = asking(
        monkeypatch,
        method="POST",
        body=b"x" * 50_000,
        headers=[
            (b"transfer-encoding", b"chunked"),
            (b"connection", b"close"),
            (b"content-length", b"3"),
            (b"x-envoy-internal", b"false"),
        ],
        timeout=0,
    )
    async with upstream(hello) as one, proxy(config(guest, cluster(one.port)), log=guest.log()) as server:
        client = await Client.open(port_of(server))
        assert (await client.get()).body == b"200 3 Hello World! (0, b'')"
        client.close()
    assert one.heads == [
        b"POST /call HTTP/1.1\r\nhost: call.test\r\ncontent-length: 50000\r\nx-envoy-internal: true\r\n\r\n"
    ]
    assert one.bodies == [b"x" * 50_000]


# --- failures -------------------------------------------------------------------------------------------


async def test_no_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(visit: Visit) -> None:
        await visit.request()
        await asyncio.sleep(60)

    guest = asking(monkeypatch, timeout=50)
    body = await one_call(guest, config(guest, up()), silent)
    assert body == b"504 3 upstream request timeout (0, b'')"


async def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = asking(monkeypatch, cluster="dead")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        text = config(guest, up(), cluster(closed.getsockname()[1], name="dead"))
        body = await one_call(guest, text)
    assert body == b"503 3 " + RESET + b"remote connection failure (0, b'')"


async def test_no_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = asking(monkeypatch, cluster="empty")
    body = await one_call(guest, config(guest, up(), cluster(name="empty").replace("lb_endpoints:", "{}")))
    assert body == b"503 3 no healthy upstream (0, b'')"


@pytest.mark.parametrize("grpc", [False, True])
async def test_reset_before_the_head(monkeypatch: pytest.MonkeyPatch, grpc: bool) -> None:
    async def closing(visit: Visit) -> None:
        await visit.request()
        visit.reset()

    headers = [(b"content-type", b"application/grpc")] if grpc else []
    guest = asking(monkeypatch, headers=headers)
    body = await one_call(guest, config(guest, up()), closing)
    # A gRPC request gets its failure in the form of gRPC: a head alone.
    assert body == (b"200 4  (0, b'')" if grpc else b"503 3 " + RESET + b"connection termination (0, b'')")


async def test_a_response_that_is_no_http(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nonsense(visit: Visit) -> None:
        await visit.request()
        visit.send(b"what?\r\n\r\n")

    guest = asking(monkeypatch)
    body = await one_call(guest, config(guest, up()), nonsense)
    assert body == b"502 3 " + RESET + b"protocol error (0, b'')"


@pytest.mark.parametrize("end", ["reset", "timeout", "too long", "too much in all"])
async def test_a_response_that_breaks_off_is_none(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    async def breaking(visit: Visit) -> None:
        await visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n" + bytes(2000))
        if end == "reset":
            await asyncio.sleep(0.05)
            visit.reset()
        await asyncio.sleep(60)

    if end == "too long":
        monkeypatch.setattr(http_call, "MAX_RESPONSE", 1000)
    if end == "too much in all":
        monkeypatch.setattr(http_call, "MAX_COLLECTED", 1000)
    guest = asking(monkeypatch, timeout=100 if end == "timeout" else 5000)
    assert await one_call(guest, config(guest, up()), breaking) == b"none 0  (11, b'reset')"


async def test_a_path_that_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = asking(monkeypatch, path="/a b")
    body = await one_call(guest, config(guest, up()))
    assert body == b"502 3 " + RESET + b"protocol error (0, b'')"


# --- who is gone meanwhile ------------------------------------------------------------------------------


async def test_the_client_leaves_before_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = asyncio.Event()

    async def late(visit: Visit) -> None:
        await visit.request()
        await gate.wait()
        visit.send(answer())

    guest = Scripted(monkeypatch)
    came = asyncio.Event()
    lives: list[bool] = []

    def request(context: int, *_: int) -> None:
        guest.http_call()
        guest.pause()

    def answered(*_: int) -> None:
        lives.append(guest.act_on(2))
        came.set()

    guest.on(REQUEST, request)
    guest.on(ANSWERED, answered)
    async with upstream(late) as one, proxy(config(guest, cluster(one.port)), log=guest.log()) as server:
        client = await Client.open(port_of(server))
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        while not one.heads:
            await asyncio.sleep(0.01)
        client.abort()
        await settled(server)
        assert len(server.filters.call_outs) == 1  # it outlives its stream
        gate.set()
        await asyncio.wait_for(came.wait(), 20)
    assert lives == [False]


async def test_the_vm_dies_with_calls_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    hung_up = asyncio.Event()

    async def silent(visit: Visit) -> None:
        await visit.request()
        await visit.reader.read()
        hung_up.set()

    guest = Scripted(monkeypatch)

    def request(context: int, *_: int) -> None:
        guest.http_call()
        if context > 2:
            raise RuntimeError("the guest traps")
        guest.pause()

    guest.on(REQUEST, request)
    async with upstream(silent) as one, proxy(config(guest, cluster(one.port)), log=guest.log()) as server:
        first, second = await Client.open(port_of(server)), await Client.open(port_of(server))
        first.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        while not one.heads:
            await asyncio.sleep(0.01)
        assert (await second.get()).status == 503
        assert (await first.response()).status == 503  # nobody waits for a dead guest
        await asyncio.wait_for(hung_up.wait(), 20)
        assert not len(server.filters.call_outs)
        first.close()
        second.close()
    assert one.visits == 1
    assert not guest.entered_with(ANSWERED)


async def test_the_proxy_ends_with_calls_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(visit: Visit) -> None:
        await visit.request()
        await visit.reader.read()

    guest = Scripted(monkeypatch)
    guest.on("proxy_on_configure", lambda *_: guest.http_call())
    guest.on("proxy_on_done", lambda *_: guest.http_call("/late"))
    async with upstream(silent) as one:
        async with proxy(config(guest, cluster(one.port)), log=guest.log()):
            while not one.heads:
                await asyncio.sleep(0.01)
        assert len(one.heads) == 1
    assert not guest.entered_with(ANSWERED)
    assert guest.entries[-1][0] == "proxy_on_delete"


# --- from everywhere ------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["proxy_on_configure", "proxy_on_tick", "proxy_on_log", ANSWERED])
async def test_calls_without_a_waiting_stream(monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    guest = Scripted(monkeypatch)
    came = asyncio.Event()
    bodies: list[bytes] = []

    def configure(*_: int) -> None:
        guest.ask("proxy_set_tick_period_milliseconds", 20 if phase == "proxy_on_tick" else 0)
        if phase in ("proxy_on_configure", ANSWERED):
            guest.http_call()

    def answered(*_: int) -> None:
        bodies.append(guest.answer()[1])
        if phase == ANSWERED and len(bodies) < 3:
            guest.http_call()
        else:
            came.set()

    guest.on(phase, lambda *_: guest.http_call())
    guest.on("proxy_on_configure", configure)
    guest.on(ANSWERED, answered)
    async with upstream(hello) as one, proxy(config(guest, cluster(one.port)), log=guest.log()) as server:
        client = await Client.open(port_of(server))
        assert (await client.get()).body == b"main"
        client.close()
        await asyncio.wait_for(came.wait(), 20)
        guest.ask("proxy_set_tick_period_milliseconds", 0)
    assert bodies[:1] == [b"Hello World!"]
    assert len(bodies) >= (3 if phase == ANSWERED else 1)


async def test_a_cluster_with_a_name_can_be_called_while_configuring(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its hosts are not known yet when the guest asks.
    guest = Scripted(monkeypatch)
    came = asyncio.Event()
    guest.on("proxy_on_configure", lambda *_: guest.http_call())

    def answered(*_: int) -> None:
        guest.results["seen"] = guest.answer()
        came.set()

    guest.on(ANSWERED, answered)
    async with upstream(hello) as one:
        text = config(guest, cluster(one.port, kind="STRICT_DNS", host="localhost"))
        text = text.replace("type: STRICT_DNS", "type: STRICT_DNS\n    dns_lookup_family: V4_ONLY")
        async with proxy(text, log=guest.log()):
            await asyncio.wait_for(came.wait(), 20)
    assert guest.results["seen"] == ("200", b"Hello World!")


async def test_many_calls_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = asyncio.Event()

    async def echo(visit: Visit) -> None:
        while True:
            head, _ = await visit.request()
            await gate.wait()
            visit.send(answer(head.split(b" ")[1]))

    guest = Scripted(monkeypatch)
    waiting: dict[int, tuple[int, bytes]] = {}

    def request(context: int, *_: int) -> None:
        for number in range(4):
            waiting[guest.http_call(f"/{context}/{number}")] = context, b"/%d/%d" % (context, number)
        guest.pause()

    got: dict[int, int] = {}

    def answered(root: int, token: int, *_: int) -> None:
        context, path = waiting.pop(token)
        assert guest.answer() == ("200", path)
        got[context] = got.get(context, 0) + 1
        if got[context] == 4:
            guest.reply(context, 200, b"done")

    guest.on(REQUEST, request)
    guest.on(ANSWERED, answered)
    async with upstream(echo) as one, proxy(config(guest, cluster(one.port)), log=guest.log()) as server:
        clients = [await Client.open(port_of(server)) for _ in range(25)]
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        while len(one.heads) < 100:
            await asyncio.sleep(0.01)
        assert len(server.filters.call_outs) == 100
        gate.set()
        for client in clients:
            assert (await client.response()).body == b"done"
            client.close()
    assert not waiting


async def test_a_fault_of_ours_costs_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Scripted(monkeypatch)
    failed = asyncio.Event()
    guest.on("proxy_on_configure", lambda *_: guest.http_call())

    def broken(*_: object) -> None:
        failed.set()
        raise KeyError("a fault")

    monkeypatch.setattr("abi.proxy_wasm.plugin.Plugin.http_call_response", broken)
    async with upstream(hello) as one, proxy(config(guest, cluster(one.port)), log=guest.log()) as server:
        await asyncio.wait_for(failed.wait(), 20)
        client = await Client.open(port_of(server))
        assert (await client.get()).body == b"main"
        client.close()
    assert any("answer to call 4 failed" in line for line in guest.lines)


# --- a fresh VM takes over ------------------------------------------------------------------------------


async def test_a_replaced_plugin_gets_its_answer_before_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = asyncio.Event()

    async def late(visit: Visit) -> None:
        await visit.request()
        await gate.wait()
        visit.send(answer())

    guest = Scripted(monkeypatch)
    guest.on("proxy_on_log", lambda *_: guest.http_call())
    node = "{metadata: {pywasmvm: {recycle_streams: 1}}}"
    async with (
        upstream(late) as one,
        proxy(config(guest, cluster(one.port), node=node), log=guest.log()) as server,
    ):
        client = await Client.open(port_of(server))
        assert (await client.get()).status == 200
        client.close()
        while not one.heads:
            await asyncio.sleep(0.01)
        old = next(iter(server.filters.successors.retired))
        assert old.vm in server.filters.vms
        assert not old.closed
        gate.set()
        async with asyncio.timeout(20):
            while server.filters.successors.retired:
                await asyncio.sleep(0.01)
        assert old.closed
    names = [name for name, _ in guest.entries]
    assert names.index(ANSWERED) < guest.entries.index(("proxy_on_done", (1,)))


async def test_a_replaced_plugin_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(visit: Visit) -> None:
        await visit.request()
        await visit.reader.read()

    monkeypatch.setattr("pywasmproxy.server.successors.RETIREMENT", 0.1)
    guest = Scripted(monkeypatch)
    guest.on("proxy_on_log", lambda *_: guest.http_call(timeout=0))
    node = "{metadata: {pywasmvm: {recycle_streams: 1}}}"
    async with (
        upstream(silent) as one,
        proxy(config(guest, cluster(one.port), node=node), log=guest.log()) as server,
    ):
        client = await Client.open(port_of(server))
        assert (await client.get()).status == 200
        client.close()
        async with asyncio.timeout(20):
            while server.filters.successors.retired or not guest.entered_with("proxy_on_done"):
                await asyncio.sleep(0.01)
        assert not len(server.filters.call_outs)
    assert not guest.entered_with(ANSWERED)


async def test_a_replaced_plugin_that_is_not_done_finishes_with_its_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guest = Scripted(monkeypatch)

    def done(context: int) -> None:
        if context == 1:
            guest.returns("proxy_on_done", 0)
            guest.http_call("/last")

    guest.on("proxy_on_done", done)
    guest.on(ANSWERED, lambda *_: guest.ask("proxy_done"))
    node = "{metadata: {pywasmvm: {recycle_streams: 1}}}"
    async with upstream(hello) as one:
        async with proxy(config(guest, cluster(one.port), node=node), log=guest.log()) as server:
            client = await Client.open(port_of(server))
            assert (await client.get()).status == 200
            client.close()
            async with asyncio.timeout(20):
                while server.filters.successors.retired or ("proxy_on_delete", (1,)) not in guest.entries:
                    await asyncio.sleep(0.01)
        assert [head.split(b" ")[1] for head in one.heads] == [b"/last"]
    assert guest.results[ANSWERED] == 0


def test_bounds_are_in_order() -> None:
    assert http_call.MAX_RESPONSE < callouts.MAX_COLLECTED


def test_a_check_of_a_configuration_calls_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    # There is no event loop, and nobody to wait for an answer.
    guest = Scripted(monkeypatch)
    guest.on("proxy_on_configure", lambda *_: guest.http_call())
    guest.on("proxy_on_done", lambda *_: guest.http_call())
    Proxy.from_text(config(guest, cluster(1)), log=guest.log()).check()
    assert [name for name, _ in guest.entries][-2:] == ["proxy_on_done", "proxy_on_delete"]


async def test_a_plugin_that_is_refused_has_called_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Scripted(monkeypatch)

    def configure(*_: int) -> None:
        guest.http_call()
        guest.returns("proxy_on_configure", 0)

    guest.on("proxy_on_configure", configure)
    async with upstream(hello) as one:
        with pytest.raises(StartError):
            async with proxy(config(guest, cluster(one.port)), log=guest.log()):
                pass
        assert not one.visits
