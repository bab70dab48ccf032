"""Routes and the manager's settings on real sockets: retries, named hosts, limits, services."""

from __future__ import annotations

import asyncio
import base64
import hashlib

import pytest

from pywasmproxy.config.model import Address
from pywasmproxy.config.wasm_objects import load_objects, serving
from pywasmproxy.server.proxy import Proxy
from tests.pywasmproxy.server.guests import guest
from tests.pywasmproxy.server.support import (
    Client,
    Lines,
    Upstream,
    Visit,
    answer,
    bootstrap,
    cluster,
    echo,
    hello,
    listener,
    port_of,
    proxy,
    upstream,
)

RETRYING = """
- match: {prefix: /}
  route: {cluster: up, retry_policy: {retry_on: "5xx,reset", num_retries: 2, per_try_timeout: 0.3s}}
"""


def in_turn(*turns: str) -> Upstream:
    """An upstream that meets each request with the next of these: a status, `reset`, `slow`."""
    left = list(turns)

    async def handler(visit: Visit) -> None:
        while True:
            await visit.request()
            turn = left.pop(0) if left else "200"
            if turn == "reset":
                visit.reset()
                return
            if turn == "slow":
                await asyncio.sleep(2)
            visit.send(answer(turn.encode()).replace(b"200 OK", turn.encode() + b" Turn"))

    return Upstream(handler)


@pytest.mark.parametrize(
    ("turns", "status", "requests"),
    [
        (["500", "503", "200"], 200, 3),
        (["reset", "reset", "200"], 200, 3),
        (["500", "500", "500"], 500, 3),
        (["slow", "200"], 200, 2),
        (["404"], 404, 1),
    ],
)
async def test_retries(turns: list[str], status: int, requests: int) -> None:
    script = in_turn(*turns)
    async with (
        upstream(script.handler) as up,
        proxy(bootstrap(listener(RETRYING), clusters=cluster(up.port))) as server,
    ):
        client = await Client.open(port_of(server))
        response = await client.post("/a", b"hello")
        assert response.status == status
        again = await client.post("/b", b"x")  # the connection is as good as new
        assert again.status == 200
        client.close()
        assert len(up.heads) == requests + 1
        assert up.bodies[:requests] == [b"hello"] * requests


async def test_nobody_listens_any_more() -> None:
    async with upstream() as gone:
        port = gone.port
    async with proxy(bootstrap(listener(RETRYING), clusters=cluster(port))) as server:
        client = await Client.open(port_of(server))
        response = await client.get()
        client.close()
        assert response.status == 503
        assert response.body.endswith(b"retried and the latest reset reason: remote connection failure")


async def test_a_client_that_leaves_between_two_attempts() -> None:
    policy = "{retry_on: 5xx, num_retries: 9, retry_back_off: {base_interval: 60s, max_interval: 60s}}"
    routes = f"- {{match: {{prefix: /}}, route: {{cluster: up, retry_policy: {policy}}}}}"
    async with (
        upstream(in_turn(*["500"] * 9).handler) as up,
        proxy(bootstrap(listener(routes), clusters=cluster(up.port))) as server,
    ):
        client = await Client.open(port_of(server))
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        while not up.heads:
            await asyncio.sleep(0.01)
        client.close()


async def test_hosts_by_name() -> None:
    routes = "- {match: {prefix: /}, route: {cluster: up, auto_host_rewrite: true}}"
    async with (
        upstream(hello) as up,
        proxy(
            bootstrap(listener(routes), clusters=cluster(up.port, kind="STRICT_DNS", host="localhost"))
        ) as server,
    ):
        client = await Client.open(port_of(server))
        assert (await client.get()).status == 200
        client.close()
        assert b"\r\nhost: localhost\r\n" in up.heads[0]
        assert b"\r\nx-envoy-original-host: a.test\r\n" in up.heads[0]


@pytest.mark.parametrize("action", ["ALLOW", "REJECT_REQUEST", "DROP_HEADER"])
async def test_underscores(action: str) -> None:
    options = f"common_http_protocol_options: {{headers_with_underscores_action: {action}}}"
    async with (
        upstream(hello) as up,
        proxy(bootstrap(listener(options=options), clusters=cluster(up.port))) as server,
    ):
        client = await Client.open(port_of(server))
        response = await client.get("/", b"x_a: 1\r\nx-b: 1\r\n")
        if action == "REJECT_REQUEST":
            assert (response.status, response.body) == (400, b"Bad Request")
            assert response.one("connection") == "close"
            assert await client.closed()
            assert up.heads == []
        else:
            assert response.status == 200
            assert (b"\r\nx_a: 1\r\n" in up.heads[0]) is (action == "ALLOW")
            assert b"\r\nx-b: 1\r\n" in up.heads[0]
        client.close()


async def test_requests_of_one_connection() -> None:
    options = "common_http_protocol_options: {max_requests_per_connection: 2}"
    direct = "- {match: {prefix: /}, direct_response: {status: 200}}"
    async with proxy(bootstrap(listener(direct, options=options))) as server:
        client = await Client.open(port_of(server))
        assert (await client.get()).one("connection") is None
        assert (await client.get()).one("connection") == "close"
        assert await client.closed()
        client.close()


async def test_a_connection_that_is_old() -> None:
    options = "common_http_protocol_options: {max_connection_duration: 0.05s}"
    direct = "- {match: {prefix: /}, direct_response: {status: 200}}"
    async with proxy(bootstrap(listener(direct, options=options))) as server:
        client = await Client.open(port_of(server))
        assert (await client.get()).one("connection") is None
        await asyncio.sleep(0.1)
        assert (await client.get()).one("connection") == "close"
        client.close()


async def test_a_connection_that_is_old_and_silent() -> None:
    """A client that says nothing more is told so after the drain time."""
    options = "common_http_protocol_options: {max_connection_duration: 0.05s}\ndrain_timeout: 0.1s"
    direct = "- {match: {prefix: /}, direct_response: {status: 200}}"
    async with proxy(bootstrap(listener(direct, options=options))) as server:
        begin = asyncio.get_running_loop().time()
        client = await Client.open(port_of(server))
        assert (await client.get()).one("connection") is None
        assert await client.closed()
        assert asyncio.get_running_loop().time() - begin >= 0.15
        (counts,) = server.measures._http.values()
        assert (counts.downstream_cx_max_duration_reached, counts.downstream_cx_idle_timeout) == (1, 0)
        client.close()


async def test_a_request_must_come_in_time() -> None:
    async with (
        upstream(echo) as up,
        proxy(bootstrap(listener(options="request_timeout: 0.1s"), clusters=cluster(up.port))) as server,
    ):
        client = await Client.open(port_of(server))
        assert (await client.post("/", b"quick")).status == 200
        await asyncio.sleep(0.15)  # the time of the first request is of no interest to the second
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nslo")
        response = await client.response()
        assert (response.status, response.body) == (408, b"request timeout")
        client.close()


async def test_the_edge() -> None:
    options = "use_remote_address: true\nnormalize_path: true\nstrip_matching_host_port: true\nvia: us"
    async with (
        upstream(hello) as up,
        proxy(bootstrap(listener(options=options), clusters=cluster(up.port))) as server,
    ):
        port = port_of(server)
        client = await Client.open(port)
        client.send(b"GET /a/../b?c HTTP/1.1\r\nhost: a.test:%d\r\n\r\n" % port)
        response = await client.response()
        assert response.one("via") == "us"
        lines = up.heads[0].decode().split("\r\n")
        assert lines[:2] == ["GET /b?c HTTP/1.1", "host: a.test"]
        assert "x-envoy-external-address: 127.0.0.1" in lines
        assert any(line.startswith("x-forwarded-for: ") for line in lines)
        client.close()


async def test_a_service_has_a_timer() -> None:
    """A plugin without streams: it ticks, and says so."""
    code = base64.b64encode(guest("clock")).decode()
    service = f"""
bootstrap_extensions:
- name: envoy.bootstrap.wasm
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.wasm.v3.WasmService
    singleton: true
    config:
      root_id: clock
      vm_config:
        runtime: envoy.wasm.runtime.v8
        code: {{local: {{inline_bytes: "{code}"}}}}
"""
    log = Lines()
    direct = "- {match: {prefix: /}, direct_response: {status: 200}}"
    async with proxy(bootstrap(listener(direct)) + service, log=log.log()):
        async with asyncio.timeout(20):
            while sum("wasm log clock: a line" in line for line in log.text) < 2:
                await asyncio.sleep(0.01)


async def test_a_plugin_object_whose_code_is_fetched() -> None:
    code = guest("mark")
    digest = hashlib.sha256(code).hexdigest()

    async def shop(visit: Visit) -> None:
        while True:
            await visit.request()
            visit.send(answer(code))

    async with upstream(shop) as source, upstream(hello) as up:
        written = (
            "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: marks}\n"
            f"spec: {{url: 'http://127.0.0.1:{source.port}/f.wasm', sha256: {digest}}}"
        )
        made = serving(load_objects([(written, "f")]), Address("127.0.0.1", up.port), Address("127.0.0.1", 0))
        async with Proxy.from_bootstrap(made, log=Lines().log()).running() as server:
            client = await Client.open(port_of(server))
            response = await client.get()
            assert (response.status, response.one("x-guest")) == (200, "yes")
            client.close()
    assert [head.split(b"\r\n")[0] for head in source.heads] == [b"GET /f.wasm HTTP/1.1"]
