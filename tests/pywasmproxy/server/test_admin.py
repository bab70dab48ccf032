"""The admin server on a real socket: what it answers, whom it refuses, what it changes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from pywasmproxy.config import load
from pywasmproxy.server import admin as admin_module
from pywasmproxy.server.proxy import Proxy, Server, StartError
from tests.pywasmproxy.server.guests import wasm_filter
from tests.pywasmproxy.server.support import (
    Client,
    Lines,
    Response,
    bootstrap,
    cluster,
    echo,
    listener,
    port_of,
    proxy,
    settled,
    upstream,
)
from tests.pywasmproxy.stats import prometheus

ADMIN = "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\n"


@dataclass
class Admin:
    """A client of the admin server."""

    client: Client
    server: Server
    upstream_port: int = 0

    async def ask(self, path: str, method: str = "GET", fields: str = "", body: str = "") -> Response:
        host = "" if "host:" in fields else "host: 127.0.0.1\r\n"
        length = f"content-length: {len(body)}\r\n" if body else ""
        self.client.send(f"{method} {path} HTTP/1.1\r\n{host}{fields}{length}\r\n{body}".encode())
        return await self.client.response(to_head=method == "HEAD")

    async def text(self, path: str, method: str = "GET") -> str:
        response = await self.ask(path, method)
        assert response.status == 200, response
        return response.body.decode()

    async def json(self, path: str) -> Any:
        response = await self.ask(path)
        assert response.one("content-type") == "application/json"
        return json.loads(response.body)

    async def stat(self, name: str) -> int | None:
        for line in (await self.text("/stats")).splitlines():
            found, _, value = line.partition(": ")
            if found == name:
                return int(value)
        return None


def admin_port(server: Server) -> int:
    assert server.admin is not None
    assert server.admin.address is not None
    return server.admin.address.port


@contextlib.asynccontextmanager
async def running(
    *, filters: str = "", options: str = "", lines: Lines | None = None, node: str = ""
) -> AsyncIterator[Admin]:
    async with upstream(echo) as up:
        text = ADMIN + bootstrap(
            listener(filters=filters, options=options), clusters=cluster(up.port), node=node
        )
        async with proxy(text, log=(lines or Lines()).log()) as server:
            client = await Client.open(admin_port(server))
            yield Admin(client, server, up.port)
            client.close()


async def test_state_and_health() -> None:
    async with running() as admin:
        ready = await admin.ask("/ready")
        assert (ready.status, ready.body) == (200, b"LIVE\n")
        assert ready.one("cache-control") == "no-cache, max-age=0"
        assert ready.one("x-content-type-options") == "nosniff"
        assert ready.one("content-type") == "text/plain; charset=UTF-8"
        assert ready.one("server") == "envoy"
        assert await admin.text("/healthcheck/fail", "POST") == "OK\n"
        failing = await admin.ask("/ready")
        assert (failing.status, failing.body) == (503, b"DRAINING\n")
        assert (await admin.json("/server_info"))["state"] == "DRAINING"
        assert await admin.stat("server.live") == 0
        await admin.text("/healthcheck/ok", "POST")
        assert await admin.text("/ready") == "LIVE\n"
        assert (await admin.ask("/ready", "HEAD")).body == b""


async def test_what_changes_something_is_for_post_only() -> None:
    lines = Lines()
    async with running(lines=lines) as admin:
        assert admin.server.admin is not None
        listed = [line.strip() for line in (await admin.text("/help")).splitlines()]
        changing = [line.partition(" ")[0] for line in listed if " (POST): " in line]
        assert set(changing) == {
            "/drain_listeners",
            "/healthcheck/fail",
            "/healthcheck/ok",
            "/logging",
            "/quitquitquit",
            "/reload",
            "/reopen_logs",
            "/reset_counters",
        }
        for path in changing:
            refused = await admin.ask(path)
            assert refused.status == 405
            assert refused.body == b"Method GET not allowed, POST required."
            assert (await admin.ask(path, "PUT")).status == 405
        assert await admin.text("/ready") == "LIVE\n"
        assert not admin.server.leave.is_set()
        assert 'admin path "/quitquitquit" mutates state, method=GET rather than POST' in lines


async def test_unknown_path() -> None:
    async with running() as admin:
        response = await admin.ask("/nope")
        assert response.status == 404
        assert response.body.startswith(b"invalid path. admin commands are:\n  /: Admin home page\n")


async def test_stats_count_requests() -> None:
    async with running() as admin:
        client = await Client.open(port_of(admin.server))
        for _ in range(3):
            await client.get("/x")
        await client.post("/y", b"body")
        where = str(admin.server.addresses["main"]).replace(":", "_")
        for name, value in {
            "http.test.downstream_cx_total": 1,
            "http.test.downstream_cx_active": 1,
            "http.test.downstream_rq_total": 4,
            "http.test.downstream_rq_active": 0,
            "http.test.downstream_rq_completed": 4,
            "http.test.downstream_rq_2xx": 4,
            "http.test.downstream_rq_5xx": 0,
            "http.test.rq_total": 4,
            "cluster.up.upstream_cx_total": 1,
            "cluster.up.upstream_cx_active": 1,
            "cluster.up.upstream_rq_total": 4,
            "cluster.up.upstream_rq_200": 4,
            "cluster.up.upstream_rq_2xx": 4,
            "cluster.up.membership_healthy": 1,
            f"listener.{where}.downstream_cx_total": 1,
            f"listener.{where}.worker_0.downstream_cx_active": 1,
            f"listener.{where}.http.test.downstream_rq_2xx": 4,
            "listener_manager.total_listeners_active": 1,
            "cluster_manager.active_clusters": 1,
            "server.live": 1,
            "server.state": 0,
            "server.concurrency": 1,
            "wasm.wasm_vm_count": 0,
        }.items():
            assert await admin.stat(name) == value, name
        received = await admin.stat("http.test.downstream_cx_rx_bytes_total")
        assert received is not None
        assert received > 4 * 30
        client.close()
        async with asyncio.timeout(20):
            while await admin.stat("http.test.downstream_cx_destroy_remote") != 1:
                await asyncio.sleep(0.01)
        assert await admin.stat("http.test.downstream_cx_active") == 0
        assert "http.test.downstream_rq_time: P0(nan," in await admin.text("/stats?filter=rq_time")
        chosen = await admin.text("/stats?filter=^http.test.downstream_rq_2xx$")
        assert chosen == "http.test.downstream_rq_2xx: 4\n"
        await admin.text("/reset_counters", "POST")
        assert await admin.stat("http.test.downstream_rq_total") == 0
        assert await admin.stat("cluster.up.upstream_rq_completed") == 0
        assert await admin.stat("cluster.up.upstream_cx_active") == 1


async def test_stats_of_what_goes_wrong() -> None:
    routes = """
- {match: {prefix: "/dead"}, route: {cluster: dead}}
- {match: {prefix: "/none"}, route: {cluster: nobody}}
- {match: {prefix: "/direct"}, direct_response: {status: 201}}
- {match: {prefix: "/slow"}, route: {cluster: up, timeout: 0.05s}}
- {match: {prefix: "/held"}, route: {cluster: up}}
"""

    async def silent(visit: Any) -> None:
        await visit.head()
        await asyncio.sleep(60)

    async with upstream(silent) as up:
        clusters = cluster(up.port) + cluster(1, name="dead") + "  - {name: nobody, type: STATIC}\n"
        text = ADMIN + bootstrap(listener(routes), clusters=clusters)
        async with proxy(text) as server:
            admin = Admin(await Client.open(admin_port(server)), server)
            client = await Client.open(port_of(server))
            statuses = [
                (await client.get(path)).status for path in ("/dead", "/none", "/direct", "/slow", "/")
            ]
            assert statuses == [503, 503, 201, 504, 404]
            for name, value in {
                "cluster.dead.upstream_cx_connect_fail": 1,
                "cluster.dead.upstream_rq_pending_failure_eject": 1,
                "cluster.dead.upstream_rq_total": 0,
                "cluster.nobody.upstream_cx_none_healthy": 1,
                "cluster.nobody.membership_total": 0,
                "cluster.up.upstream_rq_timeout": 1,
                "cluster.up.upstream_rq_504": 1,
                "cluster.up.upstream_rq_tx_reset": 1,
                "http.test.no_route": 1,
                "http.test.rq_direct_response": 1,
                "http.test.rq_total": 5,
                "http.test.downstream_rq_5xx": 3,
                "http.test.downstream_rq_4xx": 1,
                "http.test.downstream_rq_2xx": 1,
            }.items():
                assert await admin.stat(name) == value, name
            client.send(b"GET / HTTP/1.1\r\nhost: a\r\nbad header: x\r\n\r\n")
            assert (await client.response()).status == 400
            assert await admin.stat("http.test.downstream_cx_protocol_error") == 1
            gone = await Client.open(port_of(server))
            gone.send(b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n")
            async with asyncio.timeout(20):
                while not server.streams:
                    await asyncio.sleep(0.001)
                gone.abort()
                while await admin.stat("http.test.downstream_rq_rx_reset") != 1:
                    await asyncio.sleep(0.01)
            assert await admin.stat("http.test.downstream_cx_destroy_active_rq") == 1
            client.close()
            admin.client.close()


async def test_prometheus_and_json() -> None:
    async with running(filters=wasm_filter("mark", vm_id="v")) as admin:
        client = await Client.open(port_of(admin.server))
        await client.get()
        families = prometheus.parse(await admin.text("/stats/prometheus"))
        assert families["envoy_http_downstream_rq_total"].samples == [
            ("envoy_http_downstream_rq_total", {"envoy_http_conn_manager_prefix": "test"}, 1)
        ]
        assert families["envoy_wasm_envoy_wasm_runtime_v8_active"].samples[0][2] == 1
        assert families["envoy_wasm_envoy_wasm_runtime_v8_created"].kind == "counter"
        calls = {
            labels["callback"]: value for _, labels, value in families["pywasmvm_vm_callback_calls"].samples
        }
        assert calls["proxy_on_response_headers"] == 1
        assert families["pywasmvm_vm_memory_bytes"].samples[0][1:] == ({"plugin": "mark"}, 65536)
        assert await admin.text("/stats?format=prometheus&filter=rq_total") == await admin.text(
            "/stats/prometheus?filter=rq_total"
        )
        found = (await admin.json("/stats?format=json&filter=rq_total$"))["stats"]
        assert {"name": "http.test.downstream_rq_total", "value": 1} in found
        assert all(stat["name"].endswith("rq_total") for stat in found)
        client.close()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/stats?format=xml", "usage: /stats?format=(json|prometheus|text)"),
        ("/stats?type=Things", "usage: /stats?type="),
        ("/stats?filter=%5B", "Invalid regex: "),
        ("/stats/prometheus?filter=%28", "Invalid regex: "),
        ("/clusters?filter=%28", "Invalid regex: "),
    ],
)
async def test_questions_that_make_no_sense(path: str, said: str) -> None:
    async with running() as admin:
        response = await admin.ask(path)
        assert response.status == 400
        assert response.body.decode().startswith(said)


async def test_clusters_and_listeners() -> None:
    async with running() as admin:
        client = await Client.open(port_of(admin.server))
        await client.get()
        host = f"127.0.0.1:{admin.upstream_port}"
        lines = (await admin.text("/clusters")).splitlines()
        assert "up::observability_name::up" in lines
        for name, value in {
            "rq_total": "1",
            "rq_success": "1",
            "cx_active": "1",
            "health_flags": "healthy",
        }.items():
            assert f"up::{host}::{name}::{value}" in lines
        (status,) = (await admin.json("/clusters?format=json"))["cluster_statuses"]
        assert status["name"] == "up"
        (shown,) = status["host_statuses"]
        assert shown["address"]["socket_address"] == {
            "address": "127.0.0.1",
            "port_value": admin.upstream_port,
        }
        assert {"name": "rq_total", "value": "1"} in shown["stats"]
        assert {"type": "GAUGE", "name": "rq_active"} in shown["stats"]
        assert shown["health_status"] == {"eds_health_status": "HEALTHY"}
        assert status["circuit_breakers"]["thresholds"][0]["max_retries"] == 3
        assert await admin.text("/clusters?filter=other") == ""
        where = admin.server.addresses["main"]
        assert await admin.text("/listeners") == f"main::{where}\n"
        (one,) = (await admin.json("/listeners?format=json"))["listener_statuses"]
        assert one["local_address"]["socket_address"] == {"address": where.host, "port_value": where.port}
        client.close()


async def test_config_dump_says_what_was_loaded_and_ignored_and_hides_secrets() -> None:
    metadata = "{id: here, metadata: {password: hunter2, keys: {privateKey: {inline_string: hunter2}}}}"
    async with running(filters=wasm_filter("mark"), options="tracing: {}", node=metadata) as admin:
        raw = await admin.text("/config_dump")
        assert "hunter2" not in raw
        configs = {config["@type"].rpartition(".")[2]: config for config in json.loads(raw)["configs"]}
        node = configs["BootstrapConfigDump"]["bootstrap"]["node"]
        assert node["metadata"] == {
            "password": "[redacted]",
            "keys": {"privateKey": {"inline_string": "[redacted]"}},
        }
        assert configs["ClustersConfigDump"]["static_clusters"][0]["cluster"]["name"] == "up"
        assert configs["ListenersConfigDump"]["static_listeners"][0]["listener"]["name"] == "main"
        (route,) = configs["RoutesConfigDump"]["static_route_configs"]
        assert route["route_config"]["name"] == "local_route"
        ours = configs["pywasmvm/Report"]
        assert any("tracing" in warning["path"] for warning in ours["ignored"])
        assert ours["plugins"][0]["name"] == "mark"
        assert ours["limits"]["callback_time"] == 1.0
        (only,) = (await admin.json("/config_dump?resource=static_clusters"))["configs"]
        assert only["cluster"]["name"] == "up"
        missing = await admin.ask("/config_dump?resource=nope")
        assert (missing.status, missing.body) == (404, b"nope not found in config dump")


async def test_secrets_in_files_of_their_own_are_hidden_too() -> None:
    async with running() as admin:
        written = {"name": "s", "tls_certificate": {"private_key": {"inline_string": "hunter2"}}}
        admin.server.bootstrap = replace(admin.server.bootstrap, discovered=(("Secret", "7", written),))
        assert "hunter2" not in await admin.text("/config_dump")
        [secret] = (await admin.json("/config_dump?resource=dynamic_active_secrets"))["configs"]
        assert (secret["name"], secret["version_info"]) == ("s", "7")
        assert secret["secret"]["tls_certificate"]["private_key"] == {"inline_string": "[redacted]"}


async def test_levels_of_the_log_change() -> None:
    async with running() as admin:
        assert admin.server.log["wasm"].level.name == "DEBUG"
        text = await admin.text("/logging?wasm=error", "POST")
        assert text.startswith("active loggers:\n  admin: debug\n")
        assert "  wasm: error\n" in text
        await admin.text("/logging?level=warning", "POST")
        assert admin.server.log["main"].level.name == "WARN"
        await admin.text("/logging?paths=main:info,http:off", "POST")
        assert admin.server.log["main"].level.name == "INFO"
        assert "  http: off\n" in await admin.text("/logging", "POST")
        form = await admin.ask(
            "/logging", "POST", "content-type: application/x-www-form-urlencoded\r\n", "router=trace"
        )
        assert b"  router: trace\n" in form.body
        for query, said in {
            "nope=debug": "error: unknown logger name",
            "level=loud": "error: unknown logger level",
            "paths=nope:debug": "error: unknown log component 'nope'",
        }.items():
            refused = await admin.ask(f"/logging?{query}", "POST")
            assert refused.status == 400
            assert refused.body.decode().startswith(said)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9901", 200),
        ("localhost", 200),
        ("LocalHost:9901", 200),
        ("[::1]:9901", 200),
        ("admin.localhost:1", 200),
        ("evil.test", 403),
        ("evil.test:9901", 403),
        ("127.0.0.1.evil.test", 403),
        ("localhost.evil.test", 403),
        ("192.0.2.1:9901", 403),
    ],
)
async def test_other_names_are_not_ours(host: str, status: int) -> None:
    async with running() as admin:
        assert (await admin.ask("/ready", fields=f"host: {host}\r\n")).status == status


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ("", 200),
        ("origin: http://127.0.0.1\r\n", 200),
        ("sec-fetch-site: same-origin\r\n", 200),
        ("origin: http://evil.test\r\n", 403),
        ("origin: null\r\n", 403),
        ("sec-fetch-site: cross-site\r\n", 403),
        ("sec-fetch-site: same-site\r\n", 403),
    ],
)
async def test_other_sites_change_nothing(fields: str, status: int) -> None:
    async with running() as admin:
        assert (await admin.ask("/healthcheck/fail", "POST", fields)).status == status
        assert admin.server.failing is (status == 200)


async def test_broken_and_slow_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_module, "REQUEST_TIME", 0.1)
    async with running() as admin:
        port = admin_port(admin.server)
        garbage = await Client.open(port)
        garbage.send(b"\x00\x01\x02 nonsense\r\n\r\n")
        assert (await garbage.response()).status == 400
        assert await garbage.closed()
        big = await Client.open(port)
        big.send(
            b"POST /logging HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9999999\r\n\r\n" + b"x" * 70000
        )
        assert (await big.response()).status == 413
        assert await big.closed()
        heads = await Client.open(port)
        heads.send(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 20000 + b"\r\n\r\n")
        assert (await heads.response()).status == 431
        slow = await Client.open(port)
        slow.send(b"GET /rea")
        assert await slow.closed()
        silent = await Client.open(port)
        assert await silent.closed()
        piped = await Client.open(port)
        piped.send(b"GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n" * 2)
        assert [(await piped.response()).status, (await piped.response()).status] == [200, 200]
        old = await Client.open(port)
        old.send(b"GET /ready HTTP/1.0\r\nhost: localhost\r\n\r\n")
        assert (await old.response()).body == b"LIVE\n"
        assert await old.closed()


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_module, "MOST_CONNECTIONS", 2)
    async with running() as admin:
        await admin.text("/ready")
        second = await Client.open(admin_port(admin.server))
        second.send(b"GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert (await second.response()).status == 200
        third = await Client.open(admin_port(admin.server))
        assert await third.closed()
        second.close()
        async with asyncio.timeout(20):
            assert admin.server.admin is not None
            while len(admin.server.admin.connections) > 1:
                await asyncio.sleep(0.005)
        again = await Client.open(admin_port(admin.server))
        again.send(b"GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert (await again.response()).status == 200


async def test_front_page_shows_filters_costs_and_failures() -> None:
    async with running(filters=wasm_filter("trap", plugin="<b>bad</b>", vm_id="vm-1")) as admin:
        client = await Client.open(port_of(admin.server))
        assert (await client.get()).status == 503
        response = await admin.ask("/")
        page = response.body.decode()
        assert response.one("content-type") == "text/html; charset=UTF-8"
        assert "default-src 'none'" in (response.one("content-security-policy") or "")
        assert "<b>bad</b>" not in page
        assert "&lt;b&gt;bad&lt;/b&gt;" in page
        assert "Function: proxy_on_request_headers failed: Uncaught RuntimeError: unreachable" in page
        for part in (
            "vm-1",
            "64.0 KiB of guest memory",
            "proxy_on_request_headers",
            "▲ failed",
            "1 failure<",
        ):
            assert part in page, part
        for outside in ("http://", "https://", "<script", "<img", "<link"):
            assert outside not in page
        assert '<form method="post" action="/reset_counters?html">' in page
        followed = await admin.ask("/reset_counters?html", "POST")
        assert (followed.status, followed.one("location")) == (303, "/")
        client.close()


async def test_failed_and_renewed_vms_are_counted() -> None:
    filters = wasm_filter(
        "trap", more="failure_policy: FAIL_RELOAD\n      reload_config: {backoff: {base_interval: 0.02s}}"
    )
    async with running(filters=filters) as admin:
        client = await Client.open(port_of(admin.server))
        assert [(await client.get()).status for _ in range(2)] == [503, 503]
        assert await admin.stat("wasm.trap.vm_reload_backoff") == 1
        await asyncio.sleep(0.05)
        assert (await client.get()).status == 503
        for name, value in {
            "wasm.trap.vm_reload": 1,
            "wasm.trap.vm_reload_success": 1,
            "wasm.trap.vm_reload_failure": 0,
            "wasm.envoy.wasm.runtime.v8.created": 2,
            "pywasmvm.vm.trap.failures": 2,
            "pywasmvm.vm.trap.exhaustions": 0,
            "pywasmvm.vm.trap.callback.proxy_on_request_headers.calls": 2,
        }.items():
            assert await admin.stat(name) == value, name
        client.close()


async def test_instructions_and_exhaustion_where_fuel_is_counted() -> None:
    async with running(
        filters=wasm_filter("loop"), node="{metadata: {pywasmvm: {callback_fuel: 10000}}}"
    ) as admin:
        client = await Client.open(port_of(admin.server))
        assert (await client.get()).status == 503
        assert await admin.stat("pywasmvm.vm.loop.exhaustions") == 1
        burnt = await admin.stat("pywasmvm.vm.loop.callback.proxy_on_request_headers.instructions")
        assert burnt is not None
        assert 9_000 <= burnt <= 10_000
        assert "instructions each" in await admin.text("/")
        client.close()


async def test_listeners_drain_on_demand() -> None:
    async with running() as admin:
        admin.server.drain_time = 0.2
        client = await Client.open(port_of(admin.server))
        await client.get()
        assert await admin.text("/drain_listeners?graceful", "POST") == "OK\n"
        answer = await client.get()
        assert (answer.status, answer.one("connection")) == (200, "close")
        assert await admin.stat("http.test.downstream_cx_drain_close") == 1
        late = await Client.open(port_of(admin.server))  # still accepted
        late.close()
        await asyncio.sleep(0.3)
        with pytest.raises(ConnectionRefusedError):
            await Client.open(port_of(admin.server))
        assert await admin.text("/ready") == "LIVE\n"


async def test_reload_over_http_says_why_it_is_refused() -> None:
    async with upstream(echo) as up:
        good = ADMIN + bootstrap(listener(), clusters=cluster(up.port))
        texts = [good, "nonsense: true"]
        async with Proxy(
            load(good), log=Lines().log(), source=lambda: load(texts.pop(0), "again.yaml")
        ).running() as server:
            admin = Admin(await Client.open(admin_port(server)), server)
            assert await admin.text("/reload", "POST") == "OK\n"
            refused = await admin.ask("/reload", "POST")
            assert refused.status == 400
            assert "refused, the running configuration stays: again.yaml:1" in refused.body.decode()
            assert await admin.stat("pywasmvm.config.reload_success") == 1
            assert await admin.stat("pywasmvm.config.reload_refused") == 1
            admin.client.close()
            await settled(server)


async def test_counts_outlive_a_reload() -> None:
    async with upstream(echo) as up:
        before = ADMIN + bootstrap(listener(), clusters=cluster(up.port))
        after = ADMIN + bootstrap(listener(), clusters=cluster(up.port, connect_timeout="2s"))
        async with Proxy(load(before), log=Lines().log(), source=lambda: load(after)).running() as server:
            admin = Admin(await Client.open(admin_port(server)), server)
            client = await Client.open(port_of(server))
            await client.get()
            await admin.text("/reload", "POST")
            await client.get()
            assert await admin.stat("http.test.downstream_rq_total") == 2
            assert await admin.stat("cluster.up.upstream_rq_total") == 2
            client.close()
            admin.client.close()
            await settled(server)


async def test_quit_is_asked_for_after_the_answer() -> None:
    async with running() as admin:
        assert await admin.text("/quitquitquit", "POST") == "OK\n"
        async with asyncio.timeout(20):
            await admin.server.leave.wait()


async def test_a_port_that_is_taken() -> None:
    async with running() as admin:
        text = ADMIN.replace("port_value: 0", f"port_value: {admin_port(admin.server)}")
        with pytest.raises(StartError, match=r"admin: cannot listen on 127\.0\.0\.1:"):
            async with Proxy.from_text(text, log=Lines().log()).running():
                pass


async def test_an_address_for_others_answers_to_any_name() -> None:
    lines = Lines()
    text = ADMIN.replace("127.0.0.1", "0.0.0.0")
    async with Proxy.from_text(text, log=lines.log()).running() as server:
        admin = Admin(await Client.open(admin_port(server)), server)
        assert (await admin.ask("/ready", fields="host: proxy.internal\r\n")).status == 200
        assert "the admin server can be reached from other machines" in lines
        admin.client.close()


def test_addresses_that_mean_this_machine() -> None:
    for host in ("localhost", "127.8.9.1", "::1", "[::1]", "x.localhost."):
        assert admin_module.is_loopback(host)
    for host in ("", "local", "localhost.x", "10.0.0.1", "::2", "127.0.0.1.x"):
        assert not admin_module.is_loopback(host)
