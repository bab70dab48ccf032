"""Filters that let requests in or refuse them: by address, by what a service says, by how often they came."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from pywasmproxy.server.higress import command
from tests.pywasmproxy.server.higress.support import gateway, named, seen, wasm_filter
from tests.pywasmproxy.server.redis_server import redis
from tests.pywasmproxy.server.support import Visit, answer, cluster, hello, upstream

pytestmark = [pytest.mark.higress, pytest.mark.slow]

ANY = '- {name: any, match: {prefix: "/"}, route: {cluster: up}}'


async def test_ip_acl() -> None:
    """Rules of consumers, for the address a header tells, or else for the client's own."""
    config = {
        "realIPHeader": "x-forwarded-for",
        "consumers": {
            "alice": {"allowedCidrs": ["192.168.1.0/24"], "deniedCidrs": ["192.168.1.66"]},
            "local": {"allowedCidrs": ["127.0.0.0/8"]},
            "*-ci": {"deniedCidrs": ["198.51.100.0/24"]},
            "*": {"deniedCidrs": ["0.0.0.0/0", "::/0"]},
        },
    }
    async with (
        upstream(hello) as up,
        gateway([wasm_filter("gpustack-ip-acl", config)], ANY, cluster(up.port)) as it,
    ):
        for consumer, address, status in (
            ("alice", "192.168.1.7", 200),
            ("alice", "192.168.1.7, 10.0.0.1", 200),  # the first of a list is the client
            ("alice", "192.168.1.66", 403),
            ("alice", "192.168.2.7", 403),
            ("alice", "no-address", 403),
            ("local", None, 200),  # the connection's own address
            ("alice", None, 403),
            ("build-ci", "198.51.100.9", 403),
            ("build-ci", "198.51.101.9", 200),
            ("bob", "192.168.1.7", 403),
            (None, "192.168.1.7", 200),  # nobody's rule
        ):
            fields = {"x_mse_consumer": consumer, "x_forwarded_for": address}
            got = await it.get(**{name: value for name, value in fields.items() if value is not None})
            assert got.status == status, (consumer, address)
            assert status == 200 or "IP" in json.loads(got.body)["message"]
        assert len(up.heads) == 5
    assert it.lines.errors() == []


async def test_ext_auth() -> None:
    """Each request of a route that it guards is shown to an authorisation service."""
    config = {
        "route_match_regexes": ["^ai-route-"],
        "local_auth": {"enabled": True, "keys": {}, "refs": {}},
        "authz": {
            "endpoint": {
                "service_name": "auth.static",
                "service_port": 80,
                "path": "/token-auth",
                "request_method": "GET",
            },
            "timeout": 5000,
            "authorization_request": {
                "allowed_headers": [{"exact": "x-higress-llm-model"}],
                "headers_to_add": {"x-gateway": "this one"},
            },
        },
        "upstream_request": {"headers_to_remove": ["cookie", "x-to"]},
        "status_on_error": 503,
        "_rules_": [{"_match_route_": ["ai-route-public"], "access_policy": "public"}],
    }
    routes = """
- {name: open, match: {prefix: /open}, route: {cluster: up}}
- {name: ai-route-public, match: {prefix: /public}, route: {cluster: up}}
- {name: ai-route-guarded, match: {prefix: /}, route: {cluster_header: x-to}}
"""

    async def authorise(visit: Visit) -> None:
        while True:
            head, _ = await visit.request()
            if b"\r\nauthorization: Bearer good\r\n" in head:
                visit.send(answer(b"", b"x-mse-consumer: ann.gpustack-7\r\n"))
            elif b"\r\nauthorization: Bearer odd\r\n" in head:
                visit.send(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n")
            else:
                visit.send(b"HTTP/1.1 401 No\r\ncontent-length: 2\r\nwww-authenticate: Key\r\n\r\nno")

    async with upstream(hello) as up, upstream(authorise) as auth:
        clusters = cluster(up.port) + named("auth.static", auth.port)
        async with gateway([wasm_filter("gpustack-ext-auth", config)], routes, clusters) as it:
            got = await it.get(
                "/x?y", x_to="up", authorization="Bearer good", cookie="a=b", x_higress_llm_model="m"
            )
            assert (got.status, got.body) == (200, b"Hello World!")
            asked, passed = seen(auth), seen(up)
            assert asked.path == "/token-auth"
            assert asked["x-gateway"] == "this one"
            assert asked["x-higress-llm-model"] == "m"
            assert asked["x-forwarded-uri"] == "/x?y"
            assert passed.path == "/x?y"
            assert passed["x-mse-consumer"] == "ann.gpustack-7"
            assert "cookie" not in passed
            assert "x-to" not in passed  # and the request still goes where this led

            got = await it.get("/x", x_to="up", authorization="Bearer bad")
            assert (got.status, got.body, got.one("www-authenticate")) == (401, b"no", "Key")
            assert (await it.get("/x", x_to="up")).status == 401
            assert (await it.get("/x", x_to="up", authorization="Bearer odd")).status == 503
            assert (len(auth.heads), len(up.heads)) == (4, 1)

            # A client does not say who it is, and where nobody guards, nobody is asked.
            assert (await it.get("/public", x_mse_consumer="root")).status == 200
            assert seen(up)["x-mse-consumer"] == "none"
            assert (await it.get("/open", x_mse_consumer="root")).status == 200
            assert seen(up)["x-mse-consumer"] == "root"
            assert len(auth.heads) == 4
    assert it.lines.errors() == []


RATE_LIMIT = {
    "rule_name": "rule",
    "enable_on_path_suffix": ["*"],
    "redis": {"service_name": "redis.static", "service_port": 6379, "password": "main", "database": 3},
    "limit_combinations": [
        {
            "name": "users",
            "match": [{"source": "header", "name": "x-user", "value": "*"}],
            "query_limits": {"per_hour": 2},
        }
    ],
}


@pytest.mark.redis
async def test_rate_limit(tmp_path: Path) -> None:
    """It counts with a Lua script in Redis, and answers with 429 by itself."""
    async with upstream(hello) as up, redis(tmp_path, "--requirepass", "main") as real:
        clusters = cluster(up.port) + cluster(real.port, name='"outbound|6379||redis.static"')
        async with gateway([wasm_filter("gpustack-rate-limit", RATE_LIMIT)], ANY, clusters) as it:
            got = [(await it.get("/x", x_user=user)).status for user in "aaab"]
            assert got == [200, 200, 429, 200]
            assert (await it.get("/x")).status == 200  # of nobody
            assert len(up.heads) == 4
        reader, writer = await asyncio.open_connection("127.0.0.1", real.port)
        writer.write(command(b"AUTH", b"main") + command(b"SELECT", b"3") + command(b"DBSIZE"))
        assert [await reader.readline() for _ in range(3)] == [b"+OK\r\n", b"+OK\r\n", b":2\r\n"]
        writer.close()
    assert it.lines.errors() == []
