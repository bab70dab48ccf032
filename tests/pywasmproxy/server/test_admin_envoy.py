"""The admin server beside the real Envoy: the same configuration and requests, the same names and numbers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.pywasmproxy.server.guests import guest, wasm_filter
from tests.pywasmproxy.server.support import Client, Response, bootstrap, cluster, hello, listener, upstream
from tests.pywasmproxy.stats import prometheus
from tests.replay.proxy import Command

pytestmark = pytest.mark.envoy

ROUTES = """
- {match: {prefix: "/direct"}, direct_response: {status: 202}}
- {match: {prefix: "/moved"}, redirect: {path_redirect: "/x"}}
- {match: {prefix: "/dead"}, route: {cluster: dead}}
- {match: {prefix: "/up"}, route: {cluster: up}}
"""
PATHS = ("/up", "/up/2", "/direct", "/dead", "/none", "/moved")

OURS_ALONE = ("pywasmvm.", "filesystem.")
"""Names that need not be Envoy's: ours, and of files only where there are some."""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Beside:
    """One proxy after the requests."""

    def __init__(self, admin_port: int, listener_port: int) -> None:
        self.admin_port, self.listener_port = admin_port, listener_port

    async def ask(self, path: str, method: str = "GET") -> Response:
        client = await Client.open(self.admin_port)
        client.send(f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        response = await client.response()
        client.close()
        return response

    async def stats(self) -> dict[str, str]:
        lines = (await self.ask("/stats")).body.decode().splitlines()
        pairs = (line.replace(str(self.listener_port), "PORT").partition(": ") for line in lines)
        return {name: value for name, _, value in pairs}


@contextlib.asynccontextmanager
async def proxy(command: Command, folder: Path, upstream_port: int, dead: int) -> AsyncIterator[Beside]:
    one = Beside(free_port(), free_port())
    admin = f"admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {one.admin_port}}}}}}}\n"
    router = '"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router'
    text = bootstrap(
        listener(ROUTES, filters=wasm_filter("mark", vm_id="v"), port=one.listener_port),
        clusters=cluster(upstream_port) + cluster(dead, name="dead"),
    ).replace("typed_config: {}", f"typed_config: {{{router}}}")
    config = folder / f"{one.admin_port}.yaml"
    config.write_text(admin + text)
    process = await asyncio.create_subprocess_exec(
        *command.line(config, "error"), stderr=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(OSError, EOFError):
                    if (await one.ask("/ready")).status == 200:
                        break
                assert process.returncode is None
                await asyncio.sleep(0.05)
        client = await Client.open(one.listener_port)
        for path in PATHS:
            await client.get(path)
        client.close()
        async with asyncio.timeout(10):  # Envoy's numbers reach the main thread a moment later
            while (await one.stats()).get("http.test.downstream_cx_destroy") != "1":
                await asyncio.sleep(0.05)
        yield one
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@contextlib.asynccontextmanager
async def both(folder: Path) -> AsyncIterator[tuple[Beside, Beside]]:
    dead = free_port()
    async with (
        upstream(hello) as up,
        proxy(Command.parse("envoy"), folder, up.port, dead) as envoys,
        proxy(Command.parse(None), folder, up.port, dead) as ours,
    ):
        yield envoys, ours


EQUAL = [
    *(f"http.test.downstream_cx_{what}" for what in ("total", "active", "destroy", "destroy_remote")),
    *(f"http.test.downstream_rq_{what}" for what in ("total", "active", "completed", "1xx", "2xx", "3xx")),
    *(f"http.test.downstream_rq_{what}" for what in ("4xx", "5xx", "http1_total", "rx_reset", "tx_reset")),
    *(f"http.test.{what}" for what in ("no_route", "rq_total", "rq_direct_response")),
    *(f"cluster.up.upstream_cx_{what}" for what in ("total", "active", "http1_total", "connect_fail")),
    *(f"cluster.up.upstream_rq_{what}" for what in ("total", "active", "completed", "200", "2xx", "timeout")),
    *(f"cluster.dead.upstream_cx_{what}" for what in ("active", "connect_fail", "connect_timeout")),
    *(f"cluster.dead.upstream_rq_{what}" for what in ("total", "pending_failure_eject", "pending_total")),
    *(f"cluster.dead.upstream_rq_{what}" for what in ("503", "5xx", "completed")),
    *(f"cluster.{name}.membership_{what}" for name in ("up", "dead") for what in ("total", "healthy")),
    *(f"listener.127.0.0.1_PORT.{what}" for what in ("downstream_cx_total", "http.test.downstream_rq_2xx")),
    *(f"wasm.mark.vm_reload{what}" for what in ("", "_success", "_failure", "_backoff")),
    *("server.live", "server.state", "server.concurrency", "cluster_manager.active_clusters"),
    *("listener_manager.total_listeners_active", "listener_manager.workers_started"),
]


async def test_names_and_numbers(tmp_path: Path) -> None:
    async with both(tmp_path) as (envoys, ours):
        theirs, mine = await envoys.stats(), await ours.stats()
    unknown = [name for name in mine if name not in theirs and not name.startswith(OURS_ALONE)]
    assert unknown == []
    assert {name: mine.get(name) for name in EQUAL} == {name: theirs[name] for name in EQUAL}
    for name in (
        "wasm.wasm_vm_count",
        "wasm.envoy.wasm.runtime.v8.active",
        "wasm.envoy.wasm.runtime.v8.created",
    ):
        assert mine[name] == "1"  # Envoy has one for each thread
        assert name in theirs


async def test_prometheus_names_and_labels(tmp_path: Path) -> None:
    async with both(tmp_path) as (envoys, ours):
        found = []
        for one in (envoys, ours):
            text = (await one.ask("/stats/prometheus")).body.decode()
            text = text.replace(str(one.listener_port), "PORT")
            found.append(prometheus.parse(text))
    theirs, mine = found
    for name, family in mine.items():
        if name.startswith(("pywasmvm_", "envoy_filesystem_")):
            continue
        assert name in theirs
        assert family.kind == theirs[name].kind, name
        labels = {tuple(sorted(labels.items())) for _, labels, _ in family.samples}
        assert labels <= {tuple(sorted(labels.items())) for _, labels, _ in theirs[name].samples}, name


def shape(value: Any) -> Any:
    """Which keys there are, and of what kind values are."""
    if isinstance(value, dict):
        return {key: shape(child) for key, child in value.items()}
    if isinstance(value, list):
        return [shape(child) for child in value[:1]]
    return type(value).__name__


def within(mine: Any, theirs: Any, path: str = "") -> list[str]:
    """Where `mine` has something of another kind than `theirs`."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        return [
            place
            for key in mine
            if key in theirs
            for place in within(mine[key], theirs[key], f"{path}.{key}")
        ]
    if isinstance(mine, list) and isinstance(theirs, list):
        return within(mine[0], theirs[0], f"{path}[]") if mine and theirs else []
    return [] if mine == theirs else [f"{path}: {mine} != {theirs}"]


async def test_shapes(tmp_path: Path) -> None:
    async with both(tmp_path) as (envoys, ours):
        for path in ("/clusters?format=json", "/listeners?format=json", "/server_info", "/certs", "/runtime"):
            answers = [await one.ask(path) for one in (envoys, ours)]
            theirs, mine = (json.loads(answer.body) for answer in answers)
            assert within(shape(mine), shape(theirs)) == [], path
            assert set(theirs) - set(mine) <= {"hot_restart_initializing"}, path
            assert answers[0].one("content-type") == answers[1].one("content-type")
        dumps = [json.loads((await one.ask("/config_dump")).body)["configs"] for one in (envoys, ours)]
        kinds = [[config["@type"] for config in dump] for dump in dumps]
        assert set(kinds[1]) - set(kinds[0]) == {"pywasmvm/Report"}
        assert set(kinds[0]) - set(kinds[1]) <= {"type.googleapis.com/envoy.admin.v3.ScopedRoutesConfigDump"}
        for path, method in (
            ("/ready", "GET"),
            ("/stats?filter=^http.test.downstream_rq_(total|2xx)$", "GET"),
            ("/quitquitquit", "GET"),
            ("/reset_counters", "GET"),
            ("/logging?level=loud", "POST"),
            ("/logging?nope=debug", "POST"),
            ("/healthcheck/fail", "POST"),
            ("/ready", "GET"),
            ("/healthcheck/ok", "POST"),
            ("/reset_counters", "POST"),
            ("/reopen_logs", "POST"),
            ("/config_dump?resource=nope", "GET"),
            ("/nope", "GET"),
        ):
            first, second = [await one.ask(path, method) for one in (envoys, ours)]
            assert first.status == second.status, path
            assert first.one("content-type") == second.one("content-type"), path
            if path != "/nope":  # the rest of it is the list of commands
                parts = [answer.body.partition(b"active loggers")[0] for answer in (first, second)]
                assert parts[0] == parts[1], path
            assert first.body.split(b"\n")[0] == second.body.split(b"\n")[0]


async def dumps_of_files(command: Command, folder: Path) -> list[dict[str, Any]]:
    """What `/config_dump` says of resources in files of their own, without times."""
    admin, api = free_port(), "type.googleapis.com/envoy"
    address = f"{{socket_address: {{address: 127.0.0.1, port_value: {free_port()}}}}}"
    router = f'{{name: r, typed_config: {{"@type": {api}.extensions.filters.http.router.v3.Router}}}}'
    files = {
        "cds": f"""version_info: c7
resources:
- {{"@type": {api}.config.cluster.v3.Cluster, name: up, type: STATIC, load_assignment: {{cluster_name: up}}}}
""",
        "rds": f"""version_info: r1
resources:
- "@type": {api}.config.route.v3.RouteConfiguration
  name: routes
  virtual_hosts: [{{name: v, domains: ["*"], routes: [{{match: {{prefix: "/"}}, route: {{cluster: up}}}}]}}]
""",
        "lds": f"""version_info: l3
resources:
- "@type": {api}.config.listener.v3.Listener
  name: main
  address: {address}
  filter_chains:
  - filters:
    - name: manager
      typed_config:
        "@type": {api}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: s
        rds: {{route_config_name: routes, config_source: {{path_config_source: {{path: {folder}/rds.yaml}}}}}}
        http_filters: [{router}]
""",
    }
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    sources = (
        f"{one}_config: {{path_config_source: {{path: {folder}/{one}.yaml}}}}" for one in ("lds", "cds")
    )
    config = folder / "bootstrap.yaml"
    config.write_text(
        "node: {id: node-1, cluster: c}\n"
        f"admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}\n"
        f"dynamic_resources: {{{', '.join(sources)}}}\n"
    )
    process = await asyncio.create_subprocess_exec(
        *command.line(config, "error"), stderr=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
    )
    one = Beside(admin, 0)
    try:
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(OSError, EOFError):
                    if (await one.ask("/ready")).status == 200:
                        break
                await asyncio.sleep(0.05)
        found = json.loads((await one.ask("/config_dump")).body)["configs"]
    finally:
        process.terminate()
        await process.wait()

    def timeless(node: Any) -> Any:
        if isinstance(node, dict):
            return {
                key: re.sub(r"\d+", "N", child) if key == "last_updated" else timeless(child)
                for key, child in node.items()
                if child != [] and key != "port_value"  # we say what is empty, too
            }
        return [timeless(child) for child in node] if isinstance(node, list) else node

    wanted = (".ClustersConfigDump", ".ListenersConfigDump", ".RoutesConfigDump", ".SecretsConfigDump")
    return [
        timeless(dump) for dump in found if dump["@type"].endswith(wanted) and "Scoped" not in dump["@type"]
    ]


async def test_resources_in_files_of_their_own(tmp_path: Path) -> None:
    found = []
    for name, command in (("envoy", Command.parse("envoy")), ("ours", Command.parse(None))):
        (tmp_path / name).mkdir()
        dumps = await dumps_of_files(command, tmp_path / name)
        found.append(json.loads(json.dumps(dumps).replace(str(tmp_path / name), "")))
    assert found[1] == found[0]
    assert found[0][0]["version_info"] == "c7"


def test_the_guest_is_one_that_envoy_takes() -> None:
    assert guest("mark").startswith(b"\0asm")
