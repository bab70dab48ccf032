"""Which statuses a cluster is charged with, when its answer is made here: as the real Envoy counts them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.pywasmproxy.server.beside import PROXIES, beside
from tests.pywasmproxy.server.support import (
    Client,
    Visit,
    answer,
    bootstrap,
    cluster,
    listener,
    port_of,
    proxy,
    upstream,
)

ROUTES = """
- {match: {prefix: "/slow"}, route: {cluster: slow, timeout: 0.1s}}
- match: {prefix: "/try"}
  route: {cluster: try, retry_policy: {retry_on: reset, num_retries: 0, per_try_timeout: 0.1s}}
"""
OTHERS = ("dead", "none", "over", "reset", "half", "bad")
WANTED = {
    "dead": 503,
    "none": 503,
    "over": 503,
    "slow": 504,
    "try": 504,
    "reset": 503,
    "half": 200,
    "bad": 502,
}


async def handler(visit: Visit) -> None:
    while True:
        head, _ = await visit.request()
        if b"/slow" in head or b"/try" in head:
            await asyncio.sleep(0.4)
        if b"/reset" in head:
            visit.reset()
            return
        if b"/half" in head:
            visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
            await asyncio.sleep(0.05)
            visit.reset()
            return
        visit.send(b"garbage\r\n\r\n" if b"/bad" in head else answer())


def parts(port: int) -> tuple[str, str]:
    """Routes and clusters: one for each way to fail."""
    routes = ROUTES + "".join(
        f'- {{match: {{prefix: "/{name}"}}, route: {{cluster: {name}}}}}\n' for name in OTHERS
    )
    nobody = cluster(name="none").replace("      endpoints:\n      - lb_endpoints:\n", "")
    full = cluster(port, name="over", options="circuit_breakers: {thresholds: [{max_requests: 0}]}")
    rest = "".join(cluster(port, name=name) for name in ("slow", "try", "reset", "half", "bad"))
    return routes, cluster(1, name="dead") + nobody + full + rest


@pytest.mark.envoy
async def test_like_the_real_envoy(tmp_path: Path) -> None:
    seen = {}
    async with upstream(handler) as up:
        routes, clusters = parts(up.port)
        for which in PROXIES:
            async with beside(which, tmp_path, routes, clusters) as one:
                statuses = {name: (await one.get(f"/{name}"))[0] for name in WANTED}
                await one.logged(len(WANTED))
                names = await one.stats("^cluster\\..*\\.upstream_rq_([0-9]|completed)")
                seen[which] = statuses, {name: names[name] for name in names if "ternal" not in name}
    assert seen["ours"] == seen["envoy"]
    assert seen["ours"][0] == WANTED


async def test_what_a_filter_makes_of_it_is_not_the_cluster_s() -> None:
    """The client's status is another one: the cluster's stays."""
    async with upstream(handler) as up:
        routes, clusters = parts(up.port)
        matches = "status_code_filter: {comparison: {op: EQ, value: {default_value: 503, runtime_key: a}}}"
        options = f"local_reply_config: {{mappers: [{{filter: {{{matches}}}, status_code: 599}}]}}"
        async with proxy(bootstrap(listener(routes, options=options), clusters=clusters)) as server:
            client = await Client.open(port_of(server))
            assert (await client.get("/dead")).status == 599
            client.close()
            counts = server.clusters["dead"].counts
            assert [status for status, count in enumerate(counts.status) if count] == [503]
